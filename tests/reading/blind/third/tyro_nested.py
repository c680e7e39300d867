import dataclasses
from typing import Literal

import tyro


@dataclasses.dataclass(frozen=True)
class Optim:
    """Of the optimizer."""

    name: Literal["adam", "sgd"] = "adam"
    lr: float = 1e-3
    """Peak learning rate."""
    nesterov: bool = False


@dataclasses.dataclass
class Args:
    exp_name: str
    optim: Optim = dataclasses.field(default_factory=Optim)
    hidden_units: int = 128
    dropout: float = 0.1
    use_residual: bool = True
    n_steps: int = 1000
    save_dir: str | None = None


def main(args: Args) -> None:
    print("eval/return:", args.optim.lr * args.hidden_units)


if __name__ == "__main__":
    main(tyro.cli(Args))
