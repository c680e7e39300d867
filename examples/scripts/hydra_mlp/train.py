"""A small torch regression on scikit-learn's diabetes. Style: Hydra, with a config folder and a group of optimizers."""

import json
import os
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from sklearn.datasets import load_diabetes
from torch import nn


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    torch.manual_seed(cfg.seed)
    X, y = load_diabetes(return_X_y=True, scaled=True)
    X, y = torch.tensor(X * 20, dtype=torch.float32), torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)
    layers, width = [], X.shape[1]
    for _ in range(cfg.model.num_layers):
        layers += [nn.Linear(width, cfg.model.hidden_dim), nn.ReLU(), nn.Dropout(cfg.model.dropout)]
        width = cfg.model.hidden_dim
    model = nn.Sequential(*layers, nn.Linear(width, 1))
    o = cfg.optimizer
    if o.name == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=o.lr, betas=(o.beta1, 0.999), weight_decay=o.weight_decay)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)
    for _ in range(cfg.trainer.epochs):
        model.train()
        for batch in torch.randperm(300).split(cfg.trainer.batch_size):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(X[batch]).squeeze(1), y[batch]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), cfg.trainer.grad_clip)
            optimizer.step()
    model.eval()
    with torch.no_grad():
        loss = nn.functional.mse_loss(model(X[300:]).squeeze(1), y[300:]).item()
    text = json.dumps({"val_mse": loss})
    Path(os.environ["LLMHPO_RESULT"]).write_text(text) if "LLMHPO_RESULT" in os.environ else print(text)


if __name__ == "__main__":
    main()
