"""A whole script, config file or help text, read by every reader that applies."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from llmhpo.errors import ConfigError
from llmhpo.reading.arguments import read_arguments
from llmhpo.reading.base import IN_CODE, Found, Passing, Reader, Source
from llmhpo.reading.configdict import read_config_dict, read_overridden_globals
from llmhpo.reading.configs import SUFFIXES as CONFIG_SUFFIXES
from llmhpo.reading.configs import read_config
from llmhpo.reading.constants import SACRED, read_constants, read_sacred
from llmhpo.reading.environment import read_argv, read_environment
from llmhpo.reading.fields import read_fields
from llmhpo.reading.helptext import is_help, program, read_docopt, read_help
from llmhpo.reading.hydra import read_hydra
from llmhpo.reading.imports import sources_of
from llmhpo.reading.keywords import read_keywords
from llmhpo.reading.names import Verdict, judge
from llmhpo.reading.options import read_options
from llmhpo.reading.ranges import suggest
from llmhpo.reading.shell import SUFFIXES as SHELL_SUFFIXES
from llmhpo.reading.shell import Call, Variable, fill, read_calls, read_shell
from llmhpo.reading.signatures import json_cli, read_kept_defaults, read_signatures
from llmhpo.reading.source import read_source
from llmhpo.reading.trainer import read_trainer

_FROM_OUTSIDE: Final[tuple[Reader, ...]] = (
    read_arguments, read_options, read_signatures, read_config_dict, read_docopt, read_sacred, read_hydra, read_trainer, read_fields,
    read_overridden_globals, read_environment,
)  # fmt: skip
_PARSED: Final[tuple[Passing, ...]] = ("flag", "switch", "pair", "positional", "override")
_FLAGS: Final[tuple[Reader, ...]] = (read_arguments, read_options, read_fields)
_FROM_CODE: Final[tuple[Reader, ...]] = (read_constants, read_keywords, read_kept_defaults)
_CONFIG_FLAG = re.compile(r"\w*(config|cfg|conf|hparams|params)(_?(file|path|name))?")
_TRAINING_COMMANDS = ("train", "fit", "run", "training", "finetune", "main")


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found in a file, in its order, each with its verdict.

    `config` is the config file that the script reads, and `config_flag` the flag that names it ("" where the code does).
    `call` is the Python command of a shell script, `subcommand` the one whose arguments were taken, `program` what a help text
    says that it is the help of.
    """

    path: Path
    items: tuple[tuple[Found, Verdict], ...]
    config: Path | None = None
    config_flag: str = ""
    call: Call | None = None
    subcommand: str = ""
    program: str = ""

    @property
    def tunable(self) -> tuple[Found, ...]:
        """The settings that may be tuned."""
        return tuple(f for f, v in self.items if v.is_tunable)

    @property
    def fixed(self) -> tuple[tuple[Found, str], ...]:
        """The settings to leave alone, each with the reason."""
        return tuple((f, v.reason) for f, v in self.items if not v.is_tunable)


def read(path: str | Path, *, config: Path | None = None) -> Reading:
    """Read a script (.py, .ipynb, .sh), a config file (.yaml, .toml, .json) or a saved --help text. Nothing is run.

    `config` is the file that a script reads, where it cannot be told from the code.

    Raises: ConfigError, naming file, line and remedy, for what cannot be read or is none of these.
    """
    path = Path(path)
    source = read_source(path)
    try:
        return _read(source, config)
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply to be read; give the script that trains") from None


def merged(readings: Sequence[Reading]) -> Reading:
    """Several readings of one program as one: what an earlier one has found under a name counts."""
    first = readings[0]
    items = {f.name: (f, v) for reading in reversed(readings) for f, v in reading.items}
    order = dict.fromkeys(f.name for reading in readings for f, _ in reading.items)
    return replace(first, items=tuple(items[name] for name in order))


def _read(source: Source, config: Path | None) -> Reading:
    path = source.path
    if path.suffix in (".py", ".ipynb"):
        return _python(source, config)
    if path.suffix in CONFIG_SUFFIXES:
        return _reading(path, read_config(source), config=path)
    if path.suffix in SHELL_SUFFIXES:
        return _shell(source)
    if is_help(source.text):
        return _reading(path, read_help(source), program=program(source.text))
    raise ConfigError(
        f"{path}: is neither a script (.py, .ipynb, .sh), nor a config file ({', '.join(CONFIG_SUFFIXES)}), nor the text "
        "that --help prints; give one of these"
    )


def _reading(path: Path, found: Sequence[Found], **more: object) -> Reading:
    items = tuple((f, judge(f)) for f in {f.name: f for f in reversed(found)}.values())
    return Reading(path, items[::-1], **more)  # type: ignore[arg-type]


def _python(source: Source, given: Path | None) -> Reading:
    """The command line, config files and environment first; values in the code only where these hold nothing to tune."""
    found = [f for reader in _FROM_OUTSIDE for f in reader(source)]
    if not any(judge(f).is_tunable for f in found):
        found += _from_imports(source)
    words = [] if any(f.passing in _PARSED for f in found) else read_argv(source)
    found += words
    found, subcommand = _one_subcommand(found)
    config, flag = _config_of(source, found) if given is None else (given, _config_flag(found))
    if config is not None:
        keys = [replace(f, where=replace(f.where, file=config.name)) for f in read_config(read_source(config))]
        cli = json_cli(source)
        if cli is not None and given is not None:  # its config file counts for more than its flags' own defaults
            flag, subcommand = "--config", cli
            found = [f for f in found if f.name not in {k.name for k in keys}]
        found += keys
    outside = [f for f in found if f.passing not in IN_CODE]
    # what stands in the code stays tunable behind a word of sys.argv that has no range
    if any(judge(f).is_tunable and (f not in words or suggest(f).param is not None) for f in outside):
        uses = any(f.passing == "key" for f in outside)
        return _reading(source.path, outside, config=config if uses else None, config_flag=flag, subcommand=subcommand)
    found += [f for reader in _FROM_CODE for f in reader(source)]
    return _reading(source.path, found)


def _from_imports(source: Source) -> list[Found]:
    """Flags that a module declares which the script imports from beside it: `from options import get_parser`."""
    others = sources_of([source.path.name], source.path.resolve().parent)[1:] if source.path.suffix == ".py" else []
    found = (f for other in others for reader in _FLAGS for f in reader(other))
    return [f for f in found if f.passing in _PARSED and f.passing != "override"]


def _one_subcommand(found: list[Found]) -> tuple[list[Found], str]:
    """The arguments of the main parser and of one subcommand: the one named like training, else the richest."""
    if any(f.owner == SACRED for f in found):
        return found, SACRED
    owners = list(
        dict.fromkeys(f.owner for f in found if f.owner and f.passing not in IN_CODE and f.passing != "override")
    )
    if not owners:
        return found, ""
    counts = {o: sum(judge(f).is_tunable for f in found if f.owner == o) for o in owners}
    chosen = next((o for o in owners if o in _TRAINING_COMMANDS), max(owners, key=lambda o: counts[o]))
    return [f for f in found if f.owner in ("", chosen) or f.passing in (*IN_CODE, "override")], chosen


def _config_of(source: Source, found: Sequence[Found]) -> tuple[Path | None, str]:
    """The config file that lies beside the script and is named by a flag's default, or in the code."""
    folder = source.path.parent
    for one in found:
        if (
            isinstance(one.default, str)
            and (path := _beside(folder, one.default)) is not None
            and one.passing == "flag"
        ):
            return path, one.spelling
    if any(f.passing == "override" for f in found):
        return None, ""
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and (path := _beside(folder, node.value)) is not None
        ):
            return path, ""
    return None, ""


def _config_flag(found: Sequence[Found]) -> str:
    """The flag or the positional argument that takes a config file, "" where there is none."""
    flags = [f for f in found if f.passing in ("flag", "positional") and _CONFIG_FLAG.fullmatch(f.name.lower())]
    named = [
        f for f in found if f.passing == "flag" and isinstance(f.default, str) and f.default.endswith(CONFIG_SUFFIXES)
    ]
    return next((f.spelling for f in [*named, *flags]), "")


def _beside(folder: Path, name: str) -> Path | None:
    """A config file in the script's folder or below. One that lies elsewhere is the person's to name: a script may name any file."""
    if not name.endswith(CONFIG_SUFFIXES) or len(name) > 200 or not name.isprintable():
        return None
    path = folder / name
    return path if path.is_file() and path.resolve().is_relative_to(folder.resolve()) else None


def _shell(source: Source) -> Reading:
    """The flags of the shell script, with kinds, choices and helps of the Python script that it starts, if that is here."""
    found = read_shell(source)
    calls, variables = read_calls(source)
    if not calls:
        raise ConfigError(
            f"{source.path}: starts no Python program with flags; give the script that it runs in the end"
        )
    script = source.path.parent / (fill(calls[0].script, variables) or calls[0].script)
    if calls[0].script and script.is_file():
        inner = read(script)
        known = {f.name: f for f, _ in inner.items}
        given = {f.name for f in found}
        found = [_informed(f, known.get(f.name)) for f in found]
        found += [f for n, f in known.items() if n not in given and f.passing not in IN_CODE]
    reading = _reading(source.path, found, call=calls[0])
    items = ((f, _overruled(f, v, variables.get(f.spelling)) if f.passing == "env" else v) for f, v in reading.items)
    return replace(reading, items=tuple(items))


def _overruled(found: Found, verdict: Verdict, variable: Variable | None) -> Verdict:
    """The verdict on a variable of the environment, which the shell script may set whatever it was before."""
    if variable is None or variable.is_open:
        return verdict
    open_way = f"{found.spelling}=${{{found.spelling}:-{variable.value or ''}}}"
    return Verdict(False, verdict.role, f"the shell script sets it itself: write {open_way} there to tune it")


def _informed(found: Found, known: Found | None) -> Found:
    """A flag as the shell script gives it, with what the Python script knows about it."""
    if known is None:
        return found
    default = known.default if found.is_computed else found.default
    return replace(known, default=default, where=found.where, passing=found.passing if found.passing == "env" else known.passing,
                   spelling=found.spelling if found.passing == "env" else known.spelling)  # fmt: skip
