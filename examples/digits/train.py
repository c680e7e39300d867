"""Train a small network on 300 of scikit-learn's 8x8 digits and write its metrics as JSON.

Runs by itself (`python train.py --lr 0.1`); llmhpo is not imported. Two environment variables connect it to a study:
`LLMHPO_RESULT` names the file that gets the metrics (else they are printed), `LLMHPO_REPORT` the file that gets one
line an epoch. The split never changes; `--seed` moves only the initial weights, the batches, dropout and augmentation.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

EPOCHS = 60
N_TRAIN, N_VAL = 300, 500  # the other 997 rows are the test split
SPLIT_SEED = 0
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--lr", type=float, default=0.01, help="peak learning rate")
    add("--optimizer", choices=["sgd", "adamw"], default="sgd", help="update rule")
    add("--momentum", type=float, default=0.9, help="momentum, Nesterov's if above 0; only sgd uses it")
    add("--schedule", choices=["constant", "cosine"], default="constant", help="learning rate over the epochs")
    add("--batch-size", type=int, default=32, help="images per update")
    add("--width", type=int, default=64, help="units in each hidden layer")
    add("--depth", type=int, default=2, help="hidden layers")
    add("--activation", choices=sorted(ACTIVATIONS), default="relu", help="non-linearity of the hidden layers")
    add("--dropout", type=float, default=0.0, help="share of hidden units dropped in training")
    add("--weight-decay", type=float, default=1e-4, help="L2 penalty (sgd) or decoupled decay (adamw)")
    add("--label-smoothing", type=float, default=0.0, help="probability spread evenly over the ten classes")
    add("--shift", type=float, default=0.0, help="share of training images moved by one pixel in each epoch")
    add("--seed", type=int, default=0, help="random seed of everything but the split")
    return parser.parse_args()


def load_splits() -> dict[str, tuple[Tensor, Tensor]]:
    """Return (images (n, 64) in [0, 1], labels (n,)) for train, val and test, stratified and the same in every run."""
    X, y = load_digits(return_X_y=True)
    X_train, X_rest, y_train, y_rest = train_test_split(X, y, train_size=N_TRAIN, stratify=y, random_state=SPLIT_SEED)
    X_val, X_test, y_val, y_test = train_test_split(
        X_rest, y_rest, train_size=N_VAL, stratify=y_rest, random_state=SPLIT_SEED
    )
    arrays = {"train": (X_train, y_train), "val": (X_val, y_val), "test": (X_test, y_test)}
    return {name: (torch.from_numpy(X).float() / 16, torch.from_numpy(y).long()) for name, (X, y) in arrays.items()}


def build_network(args: argparse.Namespace) -> nn.Sequential:
    layers: list[nn.Module] = []
    n_inputs = 64
    for _ in range(args.depth):
        layers += [nn.Linear(n_inputs, args.width), ACTIVATIONS[args.activation](), nn.Dropout(args.dropout)]
        n_inputs = args.width
    return nn.Sequential(*layers, nn.Linear(n_inputs, 10))


def build_optimizer(args: argparse.Namespace, network: nn.Module) -> torch.optim.Optimizer:
    if args.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    return torch.optim.SGD(
        network.parameters(),
        lr=args.lr,
        momentum=args.momentum,
        nesterov=args.momentum > 0,
        weight_decay=args.weight_decay,
    )


def shift_images(X: Tensor, share: float) -> Tensor:
    """Move a random share of the images by up to one pixel along each axis, filling with background."""
    n = len(X)
    padded = F.pad(X.view(n, 8, 8), (1, 1, 1, 1))
    moved = torch.rand(n, 1) < share
    top, left = torch.where(moved, torch.randint(0, 3, (n, 2)), 1).T
    rows = top[:, None, None] + torch.arange(8)[None, :, None]
    columns = left[:, None, None] + torch.arange(8)[None, None, :]
    return padded[torch.arange(n)[:, None, None], rows, columns].reshape(n, 64)


@torch.no_grad()
def evaluate(network: nn.Module, X: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the log loss (nats, without label smoothing) and the accuracy."""
    network.eval()
    logits = network(X)
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


def train_epoch(args: argparse.Namespace, network: nn.Module, optimizer: torch.optim.Optimizer, X: Tensor, y: Tensor):
    network.train()
    X = shift_images(X, args.shift)
    for batch in torch.randperm(len(X)).split(args.batch_size):
        optimizer.zero_grad()
        F.cross_entropy(network(X[batch]), y[batch], label_smoothing=args.label_smoothing).backward()
        optimizer.step()


def report(step: int, value: float) -> None:
    if path := os.environ.get("LLMHPO_REPORT"):
        with Path(path).open("a") as file:
            file.write(json.dumps({"step": step, "value": value}) + "\n")


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    splits = load_splits()
    network = build_network(args)
    optimizer = build_optimizer(args, network)
    for epoch in range(EPOCHS):
        if args.schedule == "cosine":
            optimizer.param_groups[0]["lr"] = args.lr * 0.5 * (1 + math.cos(math.pi * epoch / EPOCHS))
        train_epoch(args, network, optimizer, *splits["train"])
        val_loss, val_accuracy = evaluate(network, *splits["val"])
        if not math.isfinite(val_loss):
            sys.exit(f"training diverged: val_loss is {val_loss} after epoch {epoch + 1}; try a lower --lr")
        report(epoch + 1, val_loss)

    # No choice is made from the test figures: they are for the closing comparison with the default alone.
    test_loss, test_accuracy = evaluate(network, *splits["test"])
    metrics = {
        "val_loss": val_loss,
        "val_accuracy": val_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
    }
    text = json.dumps(metrics) + "\n"
    if path := os.environ.get("LLMHPO_RESULT"):
        Path(path).write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
