"""A command whose script draws its hyperparameters: its space is kept with the study, and found anew when the code changes."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmhpo.discovery import Bounds, find_space
from llmhpo.errors import ConfigError, SpaceError
from llmhpo.executors.base import Objective
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.function import FunctionExecutor
from llmhpo.executors.local import LocalExecutor
from llmhpo.reading.base import Source
from llmhpo.reading.draws import Drawn, read_draws
from llmhpo.reading.imports import sources_of
from llmhpo.space import SearchSpace

SPACE_FILE = "space.json"  # in the study's folder
_MOST_WORKERS = 4
_HOPE_S = 20.0  # for a first draw where none is written in any file that is seen to be run
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Drawing:
    """What static reading says about the draws of a command, with what is `given` of its space."""

    command: str | tuple[str, ...]
    cwd: Path
    given: SearchSpace | None
    written: tuple[Drawn, ...]
    digest: str

    @classmethod
    def of(cls, command: str | Sequence[str], cwd: Path, given: SearchSpace | None) -> Drawing:
        """Read the script of a command. Raises: SpaceError for a draw that contradicts itself."""
        command = command if isinstance(command, str) else tuple(command)
        sources = sources_of(_words(command), cwd)
        written = tuple(drawn for source in sources for drawn in read_draws(source))
        return cls(command, cwd, given, written, _digest(command, given, sources))

    @property
    def is_open(self) -> bool:
        """Whether the space must be found: none is given, or the code draws more than what is."""
        return self.given is None or any(d.param is None or d.param.name not in self.given for d in self.written)

    def space(
        self,
        folder: Path,
        tell: Tell | None,
        *,
        workers: int = 1,
        gpus: Sequence[str] | None = None,
        pass_env: Sequence[str] = (),
    ) -> SearchSpace:
        """The whole space: the given one where it is that, the one kept in `folder`, else (with `tell`) a search for it.

        `tell` hears what goes on. Without it nothing is run, and what is kept counts although the code has changed.

        Raises: ConfigError where it is not known and may not be looked for, and as `find_space`.
        """
        if self.given is not None and not self.is_open:
            return self.given
        kept = _read(folder / SPACE_FILE)
        if kept is not None and (tell is None or kept[0] == self.digest):
            return kept[1]
        if tell is None:
            raise ConfigError(
                "there is no whole [space], and the one that the script draws has not been found yet; start the study with "
                "llmhpo run, or add [space.NAME] tables (llmhpo init drafts them)"
            )
        tell("looking for the hyperparameters that the script draws, by running it with its defaults and a few changes")
        executor = LocalExecutor(
            CommandTemplate(self.command, self.given, self.cwd),
            workers=min(workers, _MOST_WORKERS),
            gpus=None if gpus is None else gpus[:_MOST_WORKERS],
            pass_env=pass_env,
            grace_s=1.0,
        )
        bounds = Bounds() if self.written else Bounds(first_s=_HOPE_S)
        name = self.command if isinstance(self.command, str) else shlex.join(self.command)
        found = find_space(executor, partial=self.given, written=self.written, name=name, bounds=bounds)
        for note in (*found.notes, f"found {', '.join(found.space.names)}"):
            tell(note)
        _write(folder / SPACE_FILE, self.digest, found.space)
        return found.space


def space_of_callable(objective: Objective, tell: Tell) -> SearchSpace:
    """The space that a Python callable draws, found by calling it in processes of its own.

    Raises: as `find_space`, and ConfigError where the callable cannot be sent to another process.
    """
    found = find_space(FunctionExecutor(objective, grace_s=1.0), name="the objective", bounds=Bounds(first_s=_HOPE_S))
    for note in (*found.notes, f"found {', '.join(found.space.names)}"):
        tell(note)
    return found.space


def _words(command: str | Sequence[str]) -> list[str]:
    try:
        return shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError:  # `CommandTemplate` tells it better
        return []


def _digest(command: str | Sequence[str], given: SearchSpace | None, sources: Sequence[Source]) -> str:
    parts = [command, None if given is None else given.to_dict(), sorted([str(s.path), s.text] for s in sources)]
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path) -> tuple[str, SearchSpace] | None:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return str(raw["sources"]), SearchSpace.from_dict(raw["space"])
    except (OSError, ValueError, KeyError, TypeError, SpaceError):  # missing, or damaged: found again
        return None


def _write(path: Path, digest: str, space: SearchSpace) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps({"sources": digest, "space": space.to_dict()}, indent=1) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}; the study's folder must be one that can be"
        ) from None
