"""Run a script with values filled in, in its config file or in its code: `python -m llmhpo.reading.fill FILE PARAMS.json NAME ... -- COMMAND`.

FILE is a config file: the values of PARAMS.json are put at their dotted keys, the result is written beside PARAMS.json, and the
command is run in place of this process with the word CONFIG replaced by its path; where the command has no such word, by the path of
the file that its script names. FILE is a script or notebook: it is run with the values in the places where its code has its own.
Only the named values are filled in; without names all of a config file, and none of a script.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml

from llmhpo.errors import ConfigError
from llmhpo.reading.base import IN_CODE, Source
from llmhpo.reading.configs import entries, load_plain
from llmhpo.reading.literals import Span, in_code, literals, replaced, span_of
from llmhpo.reading.script import read
from llmhpo.reading.source import read_source

WORD = "CONFIG"
_SCRIPTS = (".py", ".ipynb")
# Takes the place of `python train.py`: the same file, folder and arguments, other text. Processes that it spawns see the file as it is.
_START: Final = """
import linecache, sys
text, path = open(sys.argv[1], encoding="utf-8").read(), sys.argv[2]
sys.argv[:] = sys.argv[2:]
sys.path[0] = path.rpartition("/")[0]
linecache.cache[path] = (len(text), None, text.splitlines(True), path)
__file__ = path
exec(compile(text, path, "exec"))
"""


def filled(path: Path, params: Mapping[str, object]) -> str:
    """The text of a config file with `params` at their dotted keys; comments are lost.

    Raises: ConfigError for a key that the file does not hold.
    """
    source = read_source(path)
    known = {e.key for e in entries(source)}
    table = load_plain(path, source.text)
    for name, value in params.items():
        if name not in known:
            raise ConfigError(f"{path}: has no key {name!r}; add it, or take it out of the search space")
        *outer, last = name.split(".")
        at = table
        for key in outer:
            assert isinstance(at, dict)
            at = at[key]
        assert isinstance(at, dict)
        at[last] = value
    if path.suffix == ".json":
        return json.dumps(table, indent=2) + "\n"
    if path.suffix == ".toml":
        assert isinstance(table, dict)
        return _toml(table, "")
    return str(yaml.safe_dump(table, sort_keys=False))


def _toml(table: Mapping[str, object], path: str) -> str:
    inner = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    lines = [f"{json.dumps(k)} = {toml_value(v)}" for k, v in table.items() if k not in inner]
    text = "\n".join(lines) + "\n" if lines else ""
    for key, value in inner.items():
        name = f"{path}{json.dumps(key)}"
        text += f"\n[{name}]\n" + _toml(value, f"{name}.")
    return text


def toml_value(value: object) -> str:
    """A scalar or a list as TOML has it. Raises: ConfigError for None, which TOML lacks."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(k))} = {toml_value(v)}" for k, v in value.items()) + " }"
    if value is None:
        raise ConfigError("None has no spelling in TOML; leave the key out")
    return repr(value) if isinstance(value, int | float) else str(value)


def filled_code(path: Path, params: Mapping[str, object]) -> str:
    """The code of a script or notebook with other values in the places where it has its own.

    Raises: ConfigError for a value that the code does not hold under its name, or holds twice.
    """
    source = read_source(path)
    known = {f.name: f for f, _ in read(path).items}
    values: dict[Span, object] = {}
    for name, value in params.items():
        places = [one.span for one in literals(source) if one.name == name]
        if (found := known.get(name)) is not None and found.passing in IN_CODE:
            values[in_code(source, found)] = value
        elif len(places) == 1:
            values[places[0]] = value
        else:
            how = "twice" if places else "no more"
            raise ConfigError(
                f"{path}: gives {name!r} a value {how}; draft the study anew, or take it out of the search space"
            )
    return replaced(source.text, values)


class _Code(str):
    """An expression, which stands for itself where a value's repr would."""

    __slots__ = ()
    __repr__ = str.__str__


def _with_path(source: Source, name: str, path: Path) -> str | None:
    """The code of a script with `path` for each text that names the file `name`; None where there is none."""
    values: dict[Span, object] = {
        span_of(n): str(path)
        for n in ast.walk(source.tree)
        if isinstance(n, ast.Constant)
        and isinstance(n.value, str)
        and n.lineno == n.end_lineno
        and Path(n.value).name == name
    }
    for call in ast.walk(source.tree):  # Path(__file__).with_name("config.json") takes no path
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "with_name"):
            continue
        inner = [span_of(a) for a in call.args]
        if call.lineno == call.end_lineno and inner and inner[0] in values:
            del values[inner[0]]
            values[span_of(call)] = _Code(f"__import__('pathlib').Path({str(path)!r})")
    return replaced(source.text, values) if values else None


def main(argv: Sequence[str]) -> None:
    """Fill in, write, and become the command. Raises: ConfigError."""
    if len(argv) < 4 or "--" not in argv[2:-1]:
        raise ConfigError(f"fill {list(argv)!r}: expected FILE PARAMS_FILE NAME ... -- COMMAND WORDS")
    file, params_file, at = Path(argv[0]), Path(argv[1]), argv.index("--", 2)
    names, words = argv[2:at], list(argv[at + 1 :])
    params = json.loads(params_file.read_text(encoding="utf-8"))
    is_code = file.suffix in _SCRIPTS
    params = {n: v for n, v in params.items() if n in names or not (names or is_code)}
    beside = params_file.resolve()
    if is_code:
        words = _started(words, file, filled_code(file, params), beside)
    else:
        target = beside.with_name(f"config{file.suffix}")
        target.write_text(filled(file, params), encoding="utf-8")
        if WORD in words:
            words = [str(target) if word == WORD else word for word in words]
        else:
            words = _with_config(words, file, target, beside)
    program = sys.executable if words[0] in ("python", "python3") else shutil.which(words[0])
    if program is None:
        raise ConfigError(f"program {words[0]!r} is not on PATH; install it or correct the name")
    os.execv(program, [program, *words[1:]])


def _with_config(words: list[str], config: Path, target: Path, beside: Path) -> list[str]:
    """The command with its script reading `target`, which it names in its code as `config`."""
    script = next((Path(w) for w in words if w.endswith(_SCRIPTS)), None)
    code = None if script is None else _with_path(read_source(script), config.name, target)
    if script is None or code is None:
        raise ConfigError(
            f"{config}: no flag of the command takes it, and its script does not name it; write {WORD} in its place"
        )
    return _started(words, script, code, beside)


def _started(words: list[str], script: Path, code: str, beside: Path) -> list[str]:
    """`python train.py ARGUMENTS` with other code in place of the script's own. Raises: ConfigError for any other command."""
    if len(words) < 2 or not Path(words[0]).name.startswith("python") or Path(words[1]).resolve() != script.resolve():
        raise ConfigError(f"{script}: values in its code can be filled in where the command is: python {script} ...")
    text = beside.with_name(f"filled-{script.stem}.py")
    text.write_text(code, encoding="utf-8")
    return [words[0], "-c", _START, str(text), str(script.resolve()), *words[2:]]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ConfigError as error:
        sys.exit(f"llmhpo: {error}")
