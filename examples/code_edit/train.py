"""Train a network on 8x8 images of digits, and hand in what it thinks of images whose digits it does not know.

Alone: python train.py --lr 0.3
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from model import Network
from torch.nn.functional import cross_entropy

from llmhpo import job

HERE = Path(__file__).parent
EPOCHS = 20


def load(path: Path) -> torch.Tensor:
    """An array of whole numbers, from 0 to 16 where they are grey values."""
    return torch.from_numpy(np.load(path).astype(np.float32))


def preprocess(images: torch.Tensor) -> torch.Tensor:
    """What the network is given of images (n, 64)."""
    return images


def fit(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, lr: float, batch_size: int) -> None:
    """Train `network` in place."""
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(images)).split(batch_size):
            loss = cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        job.report(epoch, total / len(images))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(job.seed())
    network = Network(args.hidden)
    images = preprocess(load(HERE / "data" / "train_images.npy"))
    fit(network, images, load(HERE / "data" / "train_labels.npy").long(), args.lr, args.batch_size)
    network.eval()
    with torch.no_grad():
        unknown = preprocess(load(job.inputs() or HERE / "splits" / "search_images.npy"))
        job.predictions(network(unknown).softmax(dim=1))


if __name__ == "__main__":
    main()
