"""One line of runs.jsonl: everything that is kept of one arm on one task with one seed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from evals.tasks.base import Params, Stats

Start = Literal["unseeded", "seeded"]


@dataclass(frozen=True, slots=True)
class Key:
    """What a run is told apart by."""

    task: str
    arm: str
    seed: int
    start: Start
    batch: int
    budget: int
    anonymous: bool

    def __str__(self) -> str:
        hidden = ", anonymous" if self.anonymous else ""
        return f"{self.task} {self.arm} seed {self.seed} {self.start} batch {self.batch} budget {self.budget}{hidden}"


@dataclass(frozen=True, slots=True)
class Run:
    """One line. Lists hold one entry a trial; `values` and `incumbents` are None where there is none yet.

    `repeat`: the arm asked for a configuration that it had been told of, or had asked for (where that snapped to another row,
    it was told of the row only). `seen`: what was evaluated had been before, because another configuration snapped to the
    same row. `failed`: no value. `seconds`: what asking took, model included.
    """

    key: Key
    family: str
    direction: str
    stats: Stats
    revision: str
    machine: str
    values: list[float | None]
    incumbents: list[float | None]
    sources: list[str]
    repeat: list[bool]
    seen: list[bool]
    failed: list[bool]
    seconds: list[float]
    best_params: Params | None = None
    test: float | None = None  # of the incumbent, where the task has a test set
    requests: int = 0
    completions: int = 0  # replies: several to a request, where a model can write several
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    half: str = ""  # "a" or "b": what the optimizer's constants were chosen on, and what they were not

    def to_line(self) -> str:
        """JSON without a line's end."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str) -> Run:
        """The inverse of `to_line`."""
        raw = json.loads(line)
        return cls(**{**raw, "key": Key(**raw["key"]), "stats": Stats(**raw["stats"])})

    @property
    def regrets(self) -> list[float]:
        """The incumbent's normalised regret after each trial."""
        return [self.stats.regret(value) for value in self.incumbents]


def read_runs(path: Path) -> list[Run]:
    """The runs of a file, the last line of a key only; a last line that was cut off by an interruption is left out.

    Raises: ValueError for a broken line anywhere else.
    """
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    runs: dict[Key, Run] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            run = Run.from_line(line)
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):  # no newline after it: cut off
                break
            raise ValueError(f"{path}:{number}: is no run ({error}); remove the line") from error
        runs[run.key] = run
    return list(runs.values())


def mend(path: Path) -> None:
    """Cut off what an interruption left of a last line."""
    if path.exists():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            path.write_bytes(whole)


def append_run(path: Path, run: Run) -> None:
    """Add a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(run.to_line() + "\n")
