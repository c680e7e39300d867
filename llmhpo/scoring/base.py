"""Who scores, on which data: the user's `score(predictions, labels)` and the splits of the data that no job may mix up."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple, Self

from llmhpo.errors import ConfigError, did_you_mean

SPLITS = ("search", "promotion", "test")
FORMATS = (".npy", ".npz", ".safetensors")
MAX_LINE = 24_000  # characters of a scorer's answer: what the kept end of its output has room for
_KEYS = ("inputs", "labels", "shape")


@dataclass(frozen=True, slots=True)
class Split:
    """A part of the data. A job is shown `inputs`; the scorer alone reads `labels`.

    `shape` is that of the predictions, None for a dimension of any size; without it there are as many rows as labels,
    where these are an array, and no shape that NumPy would stretch onto theirs, such as (n, 1) for (n,).
    """

    inputs: Path | None = None
    labels: Path | None = None
    shape: tuple[int | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Scoring:
    """How the metric comes about: a job writes `file`, and `function` of `script` reads it when the job's processes are gone.

    The function is called as `score(predictions, labels)` and returns the metric, or a mapping that holds it. It gets an array
    of a `.npy` file (whole numbers as int64) and a dict of arrays of `.npz` and `.safetensors`, as predictions and as labels;
    labels of another kind it gets as a path, and without labels None. It raises ValueError to refuse predictions. It is run by `python -I` and may import
    installed packages, but no file beside it. `max_mb` (10^6 bytes) bounds what is read of a job, unpacked; `timeout_s`
    and `memory_gb` bound the scorer itself.
    """

    script: Path
    splits: Mapping[str, Split] = field(default_factory=dict)
    function: str = "score"
    file: str = "predictions.npy"
    max_mb: float = 1000.0
    timeout_s: float = 300.0
    memory_gb: float = 16.0

    def __post_init__(self) -> None:
        _check_script(self.script, self.function)
        if PurePath(self.file).name != self.file or PurePath(self.file).suffix not in FORMATS:
            raise ConfigError(
                f"predictions={self.file!r} is no name of a file that is read; write a plain name ending in {', '.join(FORMATS)}"
            )
        for name in ("max_mb", "timeout_s", "memory_gb"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigError(f"{name}={value!r} of the scoring is not a positive number")
        if self.splits and "search" not in self.splits:
            raise ConfigError("splits has no 'search', which every trial is scored on; add [splits.search]")
        for name, split in self.splits.items():
            self._check_split(name, split)

    @classmethod
    def of(
        cls,
        scorer: str,
        splits: Mapping[str, object] | None = None,
        *,
        folder: Path,
        file: str = "predictions.npy",
    ) -> Self:
        """From `scorer`, "score.py" or "score.py#name", and a table a split; relative paths start at `folder`.

        Raises: ConfigError.
        """
        if not isinstance(scorer, str) or not scorer:
            raise ConfigError(f'scorer={scorer!r} names no file; write scorer = "score.py", or "score.py#name"')
        script, _, function = scorer.partition("#")
        if not isinstance(splits, Mapping | None):
            raise ConfigError(f"splits={splits!r} is no table of splits; write [splits.search] with inputs and labels")
        parsed = {name: _split(name, table, folder) for name, table in (splits or {}).items()}
        return cls((folder / script).resolve(), parsed, function or "score", file)

    def split(self, name: str) -> Split:
        """The split of this name; an empty one where none are declared. Raises: ConfigError where only others are."""
        if name in self.splits or not self.splits:
            return self.splits.get(name, Split())
        raise ConfigError(
            f"there is no split {name!r} to score on; add [splits.{name}] beside {', '.join(self.splits)}"
        )

    def hidden(self, split: str | None = None) -> tuple[Path, ...]:
        """What a job on `split` must never see: the scorer, all labels, the inputs of other splits (None: all inputs)."""
        secret = [self.script, *(s.labels for s in self.splits.values())]
        shown = None if split is None else self.split(split).inputs
        secret += [s.inputs for s in self.splits.values() if s.inputs != shown]
        return tuple(dict.fromkeys(path for path in secret if path is not None))

    def _check_split(self, name: str, split: Split) -> None:
        if name not in SPLITS:
            hint = did_you_mean(name, SPLITS, f"write one of: {', '.join(SPLITS)}")
            raise ConfigError(f"splits has {name!r}, which is no split; {hint}")
        for key, path in (("inputs", split.inputs), ("labels", split.labels)):
            if path is not None and not path.is_file():
                raise ConfigError(f"splits.{name}.{key}={str(path)!r} is no file; correct the path")
        answers = {other.labels for other in self.splits.values()} - {None} | {self.script}
        if split.inputs in answers:
            raise ConfigError(
                f"splits.{name}.inputs={str(split.inputs)!r} is shown to jobs, but is also the scorer or a split's labels; "
                "put the labels into a file of their own"
            )


class Order(NamedTuple):
    """One job to score, as the scorer's process is told. `nonce` marks its answer, `digest` is the SHA-256 of the script, `labels` "" for none, `shape` as for `Split`."""

    nonce: str
    script: str
    function: str
    digest: str
    predictions: str
    labels: str
    shape: list[int | None] | None
    max_bytes: int


def _split(name: str, table: object, folder: Path) -> Split:
    if not isinstance(table, Mapping):
        raise ConfigError(f"splits.{name}={table!r} is no table; write [splits.{name}] with inputs and labels")
    for key in table:
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS, f"known are {', '.join(_KEYS)}")
            raise ConfigError(f"splits.{name} has {key!r}, which is no key; {hint}")
    paths = [_path(f"splits.{name}.{key}", table.get(key), folder) for key in ("inputs", "labels")]
    return Split(paths[0], paths[1], _shape(f"splits.{name}.shape", table.get("shape")))


def _path(place: str, value: object, folder: Path) -> Path | None:
    if value is not None and not (isinstance(value, str | Path) and str(value)):
        raise ConfigError(f"{place}={value!r} is no path; write the path of a file")
    return None if value is None else (folder / value).resolve()


def _shape(place: str, value: object) -> tuple[int | None, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or any(type(size) is not int or size < -1 for size in value):
        raise ConfigError(f"{place}={value!r} is no shape; write a list of sizes, -1 for any, such as [1000, -1]")
    return tuple(None if size == -1 else size for size in value)


def _check_script(script: Path, function: str) -> None:
    try:
        tree = ast.parse(script.read_bytes(), str(script))
    except OSError as error:
        raise ConfigError(f"scorer={str(script)!r} cannot be read ({error.strerror}); correct the path") from None
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"scorer={str(script)!r} is not valid Python ({error}); correct it") from None
    if function not in set(_defined(tree)):
        raise ConfigError(
            f"scorer={str(script)!r} defines no {function!r}; write def {function}(predictions, labels), "
            f"or name another function: {script.name}#NAME"
        )


def _defined(tree: ast.Module) -> list[str]:
    """Names that the top level of a module defines, imports or assigns."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return names
