"""Files read with care: capped, decoded, parsed; whatever is wrong with them is told with its place and the remedy."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from pathlib import Path

from llmhpo.errors import ConfigError
from llmhpo.reading.base import Source
from llmhpo.reading.values import scope_of

MAX_BYTES = 4 << 20
_PYTHON_2 = re.compile(r"^\s*(print\s+[\"'\w]|exec\s+[\"']|except\s+\w+\s*,\s*\w+\s*:|raise\s+\w+\s*,)", re.MULTILINE)
_MAGIC = re.compile(r"^(\s*)([%!?].*)$", re.MULTILINE)


def read_text(path: Path) -> str:
    """The text of a file, in the encoding that it declares (PEP 263) or UTF-8.

    Raises: ConfigError if it cannot be opened, is no plain file, is larger than 4 MiB or no text.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; give the script or config file itself")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is not a plain file; give the script or config file itself")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; give the path of a script, a config file or a saved --help text"
        ) from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: has more than {MAX_BYTES >> 20} MiB; give the script that trains, not its data")
    return _decode(path, data)


def _decode(path: Path, data: bytes) -> str:
    if b"\0" in data:
        raise ConfigError(f"{path}: is not a text (it holds a NUL byte); give the script or config file")
    encoding = "utf-8-sig"
    if path.suffix == ".py":
        try:
            encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
        except SyntaxError as error:
            raise ConfigError(f"{path}:1: {error.msg}; save the file as UTF-8") from None
    try:
        return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: is not valid {encoding}: {error.reason}; save the file as UTF-8") from None


def read_source(path: Path) -> Source:
    """Read a file; a script (.py) or notebook (.ipynb) is parsed as well. Raises: ConfigError."""
    text = read_text(path)
    if path.suffix == ".ipynb":
        return _notebook(path, text)
    return parse(path, text) if path.suffix == ".py" else Source(path, text)


def parse(path: Path, text: str, cells: tuple[int, ...] = ()) -> Source:
    """Parse Python text. Raises: ConfigError for what is no Python 3."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the script's own invalid escapes
            tree = ast.parse(text)
            scope = scope_of(tree)
    except SyntaxError as error:
        place = Source(path, text, cells=cells).place(error.lineno or 1)
        if _PYTHON_2.search(text):
            raise ConfigError(
                f"{place}: looks like Python 2 ({error.msg}); convert it, for instance with 2to3"
            ) from None
        raise ConfigError(
            f"{place}: is not valid Python: {error.msg}; correct it, the script cannot run as it is"
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        problem = str(error) or "it is nested too deeply"
        raise ConfigError(f"{path}: cannot be parsed as Python: {problem}; give the script that trains") from None
    return Source(path, text, tree, scope, cells)


def _notebook(path: Path, text: str) -> Source:
    """The code cells of a notebook, one after the other; magics become comments, so that lines keep their numbers."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not a notebook: {error}; save it anew from Jupyter") from None
    cells = raw.get("cells") if isinstance(raw, dict) else None
    if not isinstance(cells, list):
        raise ConfigError(
            f"{path}: has no 'cells'; save it as notebook format 4, or export it: jupyter nbconvert --to script"
        )
    lines: list[str] = []
    starts: list[int] = []
    for cell in cells:
        starts.append(len(lines) + 1)
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        code = cell.get("source", "")
        code = "".join(str(part) for part in code) if isinstance(code, list) else str(code)
        if not code.startswith("%%"):
            lines += _MAGIC.sub(r"\1pass  # \2", code).split("\n")
    return parse(path, "\n".join(lines) + "\n", tuple(starts))
