"""The network: from (n, 64) grey values to (n, 10) scores of the digits."""

import torch
from torch import nn


class Network(nn.Module):
    """Two hidden layers of sigmoids."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, hidden),
            nn.Sigmoid(),
            nn.Linear(hidden, hidden),
            nn.Sigmoid(),
            nn.Linear(hidden, 10),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)
