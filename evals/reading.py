"""How much of what an expert would tune static reading finds: `python -m evals.reading`, a table a set of scripts.

The truth beside each set was written by reading the scripts by eye. `right`: found with the type and default that stand there.
`invented`: offered for tuning, though an expert would not.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmhpo.errors import ConfigError
from llmhpo.reading.script import read

ROOT = Path(__file__).parent.parent
SETS = {
    "examples": ROOT / "examples" / "scripts" / "expected.toml",
    "blind": ROOT / "tests" / "reading" / "blind" / "truth.toml",
    "second": ROOT / "tests" / "reading" / "blind" / "second" / "truth.toml",
    "third": ROOT / "tests" / "reading" / "blind" / "third" / "truth.toml",
    "fourth": ROOT / "tests" / "reading" / "blind" / "fourth" / "truth.toml",
}


@dataclass(frozen=True, slots=True)
class Score:
    """One script's names: `wanted`, and of these `right`; `invented`; `touched` are settings to leave alone that are tuned or unseen."""

    script: str
    wanted: tuple[str, ...]
    right: tuple[str, ...]
    invented: tuple[str, ...]
    touched: tuple[str, ...]
    problem: str = ""

    @property
    def missed(self) -> tuple[str, ...]:
        """Wanted, and not found with the right type and default."""
        return tuple(n for n in self.wanted if n not in self.right)


def scores(truth: Path) -> list[Score]:
    """The scores of all scripts of a truth file, which names them relative to itself."""
    return [score(truth.parent, name, table) for name, table in tomllib.loads(truth.read_text()).items()]


def score(folder: Path, name: str, table: dict[str, Any]) -> Score:
    """Read one script, with the config file that its table names, and compare."""
    wanted, fixed = table["tunable"], table["fixed"]
    try:
        reading = read(folder / name, config=folder / table["config"] if "config" in table else None)
    except ConfigError as error:
        return Score(name, tuple(wanted), (), (), tuple(fixed), str(error))
    found = {f.name: f for f in reading.tunable}
    right = [
        n
        for n, (kind, default) in wanted.items()
        if n in found and found[n].kind == kind and _same(found[n].default, default)
    ]
    left_alone = {f.name for f, _ in reading.fixed}
    return Score(
        name,
        tuple(wanted),
        tuple(right),
        tuple(n for n in found if n not in wanted),
        tuple(n for n in fixed if n not in left_alone),
    )


def _same(value: object, wanted: object) -> bool:
    return repr(value) == repr(wanted)


def total(found: list[Score]) -> str:
    """The line under a table."""
    wanted, right = sum(len(s.wanted) for s in found), sum(len(s.right) for s in found)
    invented = sum(len(s.invented) for s in found)
    return f"{right} of {wanted} ({right / wanted:.1%}) with type and default, {invented} invented"


def main() -> None:
    """Print both tables."""
    for name, truth in SETS.items():
        found = scores(truth)
        print(f"{name}: {total(found)}")
        for one in found:
            print(f"  {one.script:24} {len(one.right):2}/{len(one.wanted):2}", end="")
            for label, names in (("missed", one.missed), ("invented", one.invented), ("unseen", one.touched)):
                print(f"  {label}: {', '.join(names)}" if names else "", end="")
            print(f"  {one.problem}" if one.problem else "")


if __name__ == "__main__":
    main()
