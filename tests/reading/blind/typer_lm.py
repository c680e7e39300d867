from enum import Enum
from pathlib import Path
from typing import Optional

import typer
from typing_extensions import Annotated

app = typer.Typer(help="Character language model")


class Cell(str, Enum):
    lstm = "lstm"
    gru = "gru"


class Norm(str, Enum):
    none = "none"
    layer = "layer"


@app.command()
def prepare(source: Path, target: Path = Path("corpus.bin"), lower: bool = True):
    """Turn a text into a corpus."""
    target.write_bytes(source.read_text().lower().encode() if lower else source.read_bytes())


@app.command()
def train(
    corpus: Annotated[Path, typer.Argument(help="from `prepare`", exists=False)],
    lr: Annotated[float, typer.Option("--lr", "-l", min=0.0, help="peak learning rate")] = 2e-3,
    weight_decay: float = typer.Option(0.01, help="decoupled"),
    cell: Cell = Cell.lstm,
    norm: Annotated[Norm, typer.Option(case_sensitive=False)] = Norm.none,
    layers: Annotated[int, typer.Option(min=1, max=6)] = 2,
    hidden: int = 256,
    dropout: Annotated[float, typer.Option(min=0.0, max=0.9)] = 0.1,
    tie_weights: bool = True,
    clip: Optional[float] = 1.0,
    warmup: int = 200,
    label_smoothing: float = 0.0,
    bptt: int = 64,
    epochs: int = 3,
    resume: Optional[Path] = None,
    seed: int = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q")] = False,
):
    """Train, and print bits per character."""
    if not quiet:
        typer.echo(f"{corpus} {lr} {weight_decay} {cell.value} {norm.value} {layers} {hidden} {dropout} {tie_weights}")
    typer.echo(f"val_bpc={lr * 1000 + dropout + (clip or 0) + warmup * 0 + label_smoothing + bptt * 0 + epochs:.4f}")


if __name__ == "__main__":
    app()
