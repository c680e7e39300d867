"""A table that the person's words name, and the column of it that is to be predicted."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from llmhpo.errors import ConfigError
from llmhpo.prompts import as_line

_SUFFIXES = (".csv", ".tsv")
_LOOKED_AT = 100_000  # rows: enough to tell numbers from classes
_FEWEST_ROWS = 20
_MOST_CLASSES = 20  # whole numbers with more distinct values are amounts and not classes
_NO_VALUE = {"", "na", "nan", "null", "none"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a header, and what is predicted from it. `rows` counts those that were looked at, `classes` is 0 for an amount."""

    path: Path
    delimiter: str
    columns: tuple[str, ...]
    target: str
    rows: int
    classes: int

    @property
    def summary(self) -> str:
        """What there is to predict, in a few words."""
        kind = f"{self.classes} classes" if self.classes else "a number"
        others = len(self.columns) - 1
        return f"{as_line(self.target, 60)!r} ({kind}) from the {others} other column{'s' * (others != 1)} of {self.path.name} ({self.rows:,} rows)"


def table_in(words: str, folder: Path) -> Path | None:
    """The .csv or .tsv file of `folder` that the words name; None where they name none."""
    names = (w.strip("\"'`.,;:()") for w in words.split())
    paths = (folder / name for name in names if name.lower().endswith(_SUFFIXES))
    return next((path for path in paths if path.is_file()), None)


def read_table(path: Path, words: str) -> Table:
    """The table, with the column that the words say is predicted: "the column churn", else the one whose name stands among them.

    Raises: ConfigError where the file is no table, or the words name no column of it, or several.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            delimiter = max("\t;,", key=head.count)
            columns = tuple(next(csv.reader([head], delimiter=delimiter), []))
            rows = [row for _, row in zip(range(_LOOKED_AT), csv.reader(file, delimiter=delimiter), strict=False)]
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give the path of a .csv file") from None
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: is no table that can be read ({error}); save it as CSV in UTF-8") from None
    if len(columns) < 2 or len(set(columns)) < len(columns) or len(rows) < _FEWEST_ROWS:
        raise ConfigError(
            f"{path}: has {len(columns)} columns and {len(rows)} rows; a table with a header of different names, "
            f"two columns and {_FEWEST_ROWS} rows at least can be learned from"
        )
    target = _target(path, columns, words)
    at = columns.index(target)
    values = [row[at].strip() for row in rows if at < len(row)]
    return Table(path, delimiter, columns, target, len(rows), _classes(values))


def _target(path: Path, columns: tuple[str, ...], words: str) -> str:
    words = words.replace(path.name, " ")
    named = [c for c in columns if re.search(rf"(?<!\w){re.escape(c)}(?!\w)", words, re.IGNORECASE)]
    after = re.search(r"\b(?:column|predicts?|target)\b(?: is| the)*(?: column)? [\"'`]?([^\"'`,;]+)", words, re.IGNORECASE)  # fmt: skip
    first = [c for c in named if after is not None and after[1].lower().startswith(c.lower())]
    chosen = sorted(first, key=len)[-1:] or named
    if len(chosen) != 1:
        shown = ", ".join(as_line(c, 40) for c in columns[:20])
        said = "none" if not chosen else "several"
        raise ConfigError(
            f"{path}: your words name {said} of its columns; say which one is predicted, such as "
            f'"predict the column {as_line(columns[-1], 40)}". It has {shown}{", ..." * (len(columns) > 20)}'
        )
    return chosen[0]


def _classes(values: list[str]) -> int:
    """How many classes the values name; 0 where they are amounts."""
    known = {v for v in values if v.lower() not in _NO_VALUE}
    try:
        numbers = {float(v) for v in known}
    except ValueError:
        return len(known)
    is_whole = all(n.is_integer() for n in numbers)
    return len(numbers) if is_whole and len(numbers) <= _MOST_CLASSES else 0


def table_script(table: Table) -> str:
    """The text of a script that trains on the table and prints how well it predicts, to be tuned like any other."""
    names = ("accuracy", "log_loss") if table.classes else ("rmse", "mae")
    scores = (
        ("accuracy", "neg_log_loss") if table.classes else ("neg_root_mean_squared_error", "neg_mean_absolute_error")
    )
    prints = [
        f"print(f\"cv_{name}={{{'-' * score.startswith('neg')}scores['test_{score}'].mean():.6g}}\")"
        for name, score in zip(names, scores, strict=True)
    ]
    text = resources.files("llmhpo.reading").joinpath("table_script.txt").read_text(encoding="utf-8")
    return Template(text).substitute(
        target=_in_doc(table.target), table=_in_doc(table.path.name), target_text=repr(table.target),
        table_text=repr(str(table.path)), delimiter=repr(table.delimiter), scoring=repr(list(scores)),
        model=f"HistGradientBoosting{'Classifier' if table.classes else 'Regressor'}",
        folds="StratifiedKFold" if table.classes else "KFold",
        value="row[target].strip()" if table.classes else "float(row[target])", prints="\n".join(prints),
    )  # fmt: skip


def _in_doc(name: str) -> str:
    """A name where it cannot end a docstring."""
    return re.sub(r'["\\\\]', "_", as_line(name, 60))
