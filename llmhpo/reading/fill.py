"""Run a script with its config file filled in: `python -m llmhpo.reading.fill config.yaml PARAMS.json -- python train.py CONFIG`.

The config file is read, the parameters of PARAMS.json are put at their dotted keys, the result is written beside
PARAMS.json, and the command is run in place of this process with the word CONFIG replaced by its path.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from llmhpo.errors import ConfigError
from llmhpo.reading.configs import entries, load_plain
from llmhpo.reading.source import read_source

WORD = "CONFIG"


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


def main(argv: list[str]) -> None:
    """Fill, write and become the command. Raises: ConfigError."""
    if len(argv) < 4 or argv[2] != "--":
        raise ConfigError(f"fill {argv!r}: expected CONFIG_FILE PARAMS_FILE -- COMMAND WORDS")
    config, params_file = Path(argv[0]), Path(argv[1])
    params = json.loads(params_file.read_text(encoding="utf-8"))
    target = params_file.resolve().with_name(f"config{config.suffix}")
    target.write_text(filled(config, params), encoding="utf-8")
    words = [str(target) if word == WORD else word for word in argv[3:]]
    program = sys.executable if words[0] in ("python", "python3") else shutil.which(words[0])
    if program is None:
        raise ConfigError(f"program {words[0]!r} is not on PATH; install it or correct the name")
    os.execv(program, [program, *words[1:]])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ConfigError as error:
        sys.exit(f"llmhpo: {error}")
