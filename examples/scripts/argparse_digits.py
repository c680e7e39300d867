"""Train a perceptron on scikit-learn's digits. Style: argparse, with a group, a switch, a pair and computed choices."""

import argparse
import json
import os
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}
DEFAULT_LR = 1e-2


def parse_args():
    parser = argparse.ArgumentParser(description="The --hidden and --shift in this text are no arguments.")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="unused; digits come with scikit-learn")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--verbose", action="store_true")
    optim = parser.add_argument_group("optimisation")
    optim.add_argument("--lr", type=float, default=DEFAULT_LR, help="peak learning rate")
    optim.add_argument("--weight-decay", "--wd", dest="weight_decay", type=float, default=1e-4)
    optim.add_argument("--batch-size", type=int, default=2**5, help="images per update")
    optim.add_argument("--nesterov", action=argparse.BooleanOptionalAction, default=True)
    optim.add_argument("--momentum", type=float, default=0.9)
    net = parser.add_argument_group("network")
    net.add_argument("--hidden", type=int, default=64, help="units of the hidden layer")
    net.add_argument("--activation", choices=sorted(ACTIVATIONS), default="relu")
    net.add_argument("--dropout", type=float, default=0.1)
    net.add_argument("--batch-norm", action="store_true", help="normalise the hidden layer")
    return parser.parse_args()


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    X, y = load_digits(return_X_y=True)
    X_train, X_val, y_train, y_val = train_test_split(X / 16, y, test_size=0.3, random_state=0)
    X_train, y_train = torch.tensor(X_train, dtype=torch.float32), torch.tensor(y_train)
    X_val, y_val = torch.tensor(X_val, dtype=torch.float32), torch.tensor(y_val)
    norm = [nn.BatchNorm1d(args.hidden)] if args.batch_norm else []
    layers = [nn.Linear(64, args.hidden), *norm, ACTIVATIONS[args.activation](), nn.Dropout(args.dropout)]
    model = nn.Sequential(*layers, nn.Linear(args.hidden, 10))
    nesterov = args.nesterov and args.momentum > 0
    optimizer = torch.optim.SGD(
        model.parameters(), lr=args.lr, momentum=args.momentum, nesterov=nesterov, weight_decay=args.weight_decay
    )
    for epoch in range(args.epochs):
        model.train()
        for batch in torch.randperm(len(X_train)).split(args.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(X_train[batch]), y_train[batch])
            loss.backward()
            optimizer.step()
        if args.verbose:
            print(epoch, float(loss))
    model.eval()
    with torch.no_grad():
        accuracy = (model(X_val).argmax(1) == y_val).float().mean().item()
    text = json.dumps({"val_accuracy": accuracy})
    Path(os.environ["LLMHPO_RESULT"]).write_text(text) if "LLMHPO_RESULT" in os.environ else print(text)


if __name__ == "__main__":
    main()
