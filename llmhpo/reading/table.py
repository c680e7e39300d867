"""A table that the person's words name, and the column of it that is to be predicted."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from llmhpo.errors import ConfigError
from llmhpo.prompts import as_line

_SUFFIXES = (".csv", ".tsv")
_FEWEST_ROWS = 20
_FEWEST_OF_CLASS = 5  # one for each of the five parts that the script predicts
_MOST_CLASSES = 20  # whole numbers with more distinct values are amounts and not classes
_NO_VALUE = {"", "na", "nan", "null", "none"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a header, and what is predicted from it. `classes` is 0 for an amount."""

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
        others = len(_named(self.columns)) - 1
        return f"{as_line(self.target, 60)!r} ({kind}) from the {others} other column{'s' * (others != 1)} of {self.path.name} ({self.rows:,} rows)"


def table_in(words: str, folder: Path) -> Path | None:
    """The .csv or .tsv file of `folder` that the words name; None where they name none."""
    quoted = [found[2] for found in re.finditer(r"(?<!\w)([\"'`])(.+?)\1(?!\w)", words)]  # may hold spaces
    plain = [w.lstrip("\"'`([{<").rstrip("\"'`.,;:?!)]}>") for w in words.split()]  # "./" on the left is part of a path
    paths = (folder / name for name in (*quoted, *plain) if name.lower().endswith(_SUFFIXES))
    return next((path for path in paths if path.is_file()), None)


def read_table(path: Path, words: str) -> Table:
    """The table, with the column that the words say is predicted: "the column churn", else the one whose name stands among them.

    Raises: ConfigError where the file is no table, the words name no column of it, or several, or too little is known of it.
    """
    try:
        return _read(path, words)
    except ConfigError:  # is a ValueError too
        raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give the path of a .csv file") from None
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: is no table that can be read ({error}); save it as CSV in UTF-8") from None


def _read(path: Path, words: str) -> Table:
    with path.open(newline="", encoding="utf-8-sig") as file:
        head = file.readline()
        delimiter = max("\t;,", key=re.sub('"[^"]*"', "", head).count)  # a quoted name may hold any of them
        columns = tuple(next(csv.reader([head], delimiter=delimiter), []))
        if len(columns) < 2 or len(set(columns)) < len(columns):
            raise ConfigError(
                f"{path}: {len(columns)} column{'s' * (len(columns) != 1)} in its first line; a table starts with the names "
                "of its columns, two at least and no two the same, parted by comma, semicolon or tab"
            )
        target = _target(path, columns, words)
        at, rows, counts = columns.index(target), 0, Counter[str]()
        for row in filter(None, csv.reader(file, delimiter=delimiter)):
            rows += 1
            counts[row[at].strip() if at < len(row) else ""] += 1
    place = f"{path}: column {as_line(target, 60)!r}"
    known = Counter({value: n for value, n in counts.items() if value.lower() not in _NO_VALUE})
    if known.total() < _FEWEST_ROWS:
        raise ConfigError(
            f"{place} has a value in {known.total()} of {rows} rows; {_FEWEST_ROWS} at least can be learned from"
        )
    return Table(path, delimiter, columns, target, rows, _classes(known, place))


def _named(columns: Sequence[str]) -> list[str]:
    """Those with a name: one without is most often a row's number, as pandas writes it."""
    return [c for c in columns if c.strip()]


def _target(path: Path, columns: tuple[str, ...], words: str) -> str:
    words = words.replace(path.name, " ")
    all_named = _named(columns)
    found = _standing(all_named, r"(?<!\w){}(?!\w)", words)
    after = re.search(r"\b(?:column|predicts?|target)\b(?: is| the)*(?: column)? [\"'`]?([^\"'`,;]+)", words, re.IGNORECASE)  # fmt: skip
    first = [] if after is None else _standing(found, r"\A{}(?!\w)", after[1])
    longest = max((len(c.strip()) for c in first), default=0)
    chosen = [c for c in first if len(c.strip()) == longest] or found
    if len(chosen) != 1:
        shown = ", ".join(as_line(c.strip(), 40) for c in all_named[:20])
        said = "none" if not chosen else "several"
        raise ConfigError(
            f"{path}: your words name {said} of its columns; say which one is predicted, such as "
            f'"predict the column {as_line("".join(all_named[-1:]).strip(), 40)}". It has {shown}{", ..." * (len(all_named) > 20)}'
        )
    return chosen[0]


def _standing(columns: list[str], pattern: str, text: str) -> list[str]:
    """The columns whose names stand in the text. Of names that differ in capitals alone, the one that is spelled as there."""

    def stands(column: str, flags: int) -> bool:
        return re.search(pattern.format(re.escape(column.strip())), text, flags) is not None

    exact = {c.strip().lower() for c in columns if stands(c, 0)}
    return [c for c in columns if stands(c, re.IGNORECASE) and (stands(c, 0) or c.strip().lower() not in exact)]


def _classes(known: Counter[str], place: str) -> int:
    """How many classes the values name; 0 where they are amounts."""
    if len(known) < 2:
        raise ConfigError(
            f"{place} holds one value only, {as_line(next(iter(known)), 40)!r}; there is nothing to predict"
        )
    rarest, rows = min(known.items(), key=lambda item: item[1])
    word = next((value for value in known if not _is_number(value)), None)
    if word is None:
        numbers = {float(value) for value in known}
        are_classes = all(n.is_integer() for n in numbers) and len(known) <= _MOST_CLASSES and rows >= _FEWEST_OF_CLASS
        return len(known) if are_classes and len(numbers) == len(known) else 0
    if rows < _FEWEST_OF_CLASS:
        raise ConfigError(
            f"{place} holds words such as {as_line(word, 40)!r}, so that each value is a class, and {as_line(rarest, 40)!r} is in "
            f"{rows} row{'s' * (rows != 1)} only; take classes of fewer than {_FEWEST_OF_CLASS} rows out, or, where it is an amount, write "
            "plain numbers such as 1101.5: no decimal comma, no unit, and nothing where it is not known"
        )
    return len(known)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
