"""Image classifier on CIFAR, configured with tyro: nested dataclasses, Literal, a tuple."""
from __future__ import annotations

import dataclasses
import pathlib
from dataclasses import dataclass, field
from typing import Literal

import tyro


@dataclass
class AdamW:
    lr: float = 3e-4
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05


@dataclass
class Schedule:
    kind: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = 500


@dataclass
class Augment:
    mixup: float = 0.2
    """Alpha of mixup, 0 for none."""
    crop_padding: int = 4
    flip: bool = True
    randaugment_magnitude: int = 9


@dataclass
class Config:
    data: pathlib.Path = pathlib.Path("~/data/cifar")
    optim: AdamW = field(default_factory=AdamW)
    sched: Schedule = field(default_factory=Schedule)
    aug: Augment = field(default_factory=Augment)
    batch_size: int = 128
    steps: int = 10_000
    """Total optimisation steps."""
    label_smoothing: float = 0.1
    ema_decay: float = 0.999
    seed: int = 0
    compile: bool = False
    precision: Literal["fp32", "bf16"] = "bf16"
    wandb_project: str | None = None


def main(cfg: Config) -> None:
    from mylib import Trainer  # noqa: PLC0415

    trainer = Trainer(dataclasses.asdict(cfg))
    for step in range(cfg.steps):
        loss = trainer.step()
        if step % 500 == 0:
            print(f"step {step} train_loss {loss:.4f} val_acc {trainer.validate():.4f}")


if __name__ == "__main__":
    main(tyro.cli(Config))
