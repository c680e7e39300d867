"""What a chat consists of: commands in one table, and the session that they work on. Light to import: the screen waits for it."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from llmhpo.errors import ConfigError

if TYPE_CHECKING:
    from llmhpo.operations import StudyFile

Kind = Literal["reads", "changes", "spends", "leaves"]
_LIGHT = ("helping",)  # modules whose commands answer while the heavy ones are still being imported
_DRAFTS = re.compile(r"""\s*("[^"]*"|'[^']*'|\S+)\s+(\S+)\s+(minimize|maximize)(?:\s+(.*))?$""", re.DOTALL)
_importing = threading.RLock()


def heavy(module: str) -> Any:
    """A module of llmhpo, imported by one thread at a time: to two that import at once, Python may hand out half of one."""
    with _importing:
        return import_module(f"llmhpo.{module}")


@dataclass(slots=True)
class Session:
    """What commands work on. `path` is the study file, which need not exist yet.

    `say` shows text, at any moment and from any thread; `ask` puts a question to the person and says whether they agreed.
    `write` shows a part of a line, for answers that come word by word.
    """

    path: Path
    say: Callable[[str], None]
    ask: Callable[[str], bool]
    write: Callable[[str], None] = lambda _: None

    def study(self) -> StudyFile:
        """The study as its file has it now. Raises: ConfigError where there is none."""
        if not self.path.exists():
            raise ConfigError(
                f"there is no {self.path} yet; write one with: /task SCRIPT METRIC minimize|maximize WHAT IS TRAINED "
                "(or llmhpo init), or start the chat with the path of another"
            )
        return cast("StudyFile", heavy("operations").StudyFile.read(self.path))


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command: `usage` are its arguments, `kind` what it does to the world, `module` where its function stands."""

    name: str
    usage: str
    help: str
    kind: Kind
    module: str
    writes_with: int = 99  # so many arguments make a command that reads one that writes a file

    def kind_of(self, words: list[str]) -> Kind:
        """What it does with these arguments."""
        writes = len(words) >= self.writes_with or any(word.lower().endswith(".png") for word in words)
        return "changes" if self.kind == "reads" and writes else self.kind

    def __call__(self, session: Session, words: list[str]) -> str:
        """Do it; what is to be shown. Raises: errors of llmhpo, which name value, place and remedy."""
        name = f"chat.{self.module}"
        module = import_module(f"llmhpo.{name}") if self.module in _LIGHT else heavy(name)
        function = getattr(module, self.name)
        return cast("Callable[[Session, list[str]], str]", function)(session, words)


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("task", "[WORDS | SCRIPT METRIC minimize|maximize WORDS]", "what is tuned; say it in other words; or draft it from a script", "reads", "looking", 1),
        Command("space", "", "what is tuned, in which range, and how you have limited it", "reads", "looking"),
        Command("run", "[N]", "run the study, up to N trials in all; it goes on when you leave", "spends", "running"),
        Command("pause", "[now]", "end the run after its running trials, or now", "changes", "running"),
        Command("resume", "", "go on with the study", "spends", "running"),
        Command("status", "", "how far it is, the latest trials, the bill", "reads", "looking"),
        Command("trial", "N", "all that is known of a trial", "reads", "looking"),
        Command("why", "N", "why a trial was tried, and what matters", "reads", "looking"),
        Command("best", "", "the best configuration beside the default", "reads", "looking"),
        Command("note", "[TEXT]", "words for the model: they end its next prompt; alone, all notes", "changes", "changing"),
        Command("narrow", "NAME LOW HIGH | NAME CHOICE ...", "search only a part of a range", "changes", "changing"),
        Command("widen", "NAME [LOW HIGH | CHOICE ...]", "lift a limit, or go beyond the range", "changes", "changing"),
        Command("freeze", "NAME [VALUE]", "hold a parameter: at a value, else at the best trial's", "changes", "changing"),
        Command("add", "NAME TYPE LOW HIGH [log] default=V [flag=--x] | NAME categorical CHOICE ... default=V", "tune one more parameter", "changes", "changing"),
        Command("budget", "[trials|usd|tokens|requests|wall N]", "limits of the study, or another one", "changes", "changing"),
        Command("diff", "N", "what a trial's code changed", "reads", "looking"),
        Command("plot", "[history|NAME] [FILE.png]", "draw the values over the trials, or over a parameter", "reads", "plotting"),
        Command("report", "[FILE]", "write the report, one HTML page", "changes", "looking"),
        Command("export", "[json|toml|command] [FILE]", "the best configuration, to keep", "reads", "looking", 2),
        Command("undo", "", "take back the last note, limit, parameter or budget", "changes", "changing"),
        Command("help", "[COMMAND]", "this list, or more on one", "reads", "helping"),
        Command("stop", "", "leave what is under way: the model's answer, else a command", "leaves", "helping"),
        Command("quit", "", "leave; a run goes on without you", "leaves", "helping"),
    )
}  # fmt: skip


def parse(line: str) -> tuple[Command, list[str]]:
    """The command of a line that begins with a slash, and its words; quotes hold words together.

    The text of a note, and the words for a task, are one word, as they stand. Raises: ConfigError.
    """
    name, _, rest = line.strip().removeprefix("/").partition(" ")
    command = COMMANDS.get(name.lower())
    if command is None:
        raise ConfigError(f"{'/' + name[:40]!r} is no command{_hint(name)}")
    if command.name == "task" and (drafts := _DRAFTS.match(rest)):
        return command, [word.strip().strip("\"'") for word in drafts.groups("") if word]
    if command.name in ("note", "task"):
        return command, [rest.strip()] if rest.strip() else []
    try:
        return command, shlex.split(rest)
    except ValueError as error:
        raise ConfigError(f"/{command.name} {rest[:80]}: {error}; close the quotation mark") from None


def _hint(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name.lower(), COMMANDS, 1)
    return f"; did you mean /{close[0]}?" if close else "; /help lists all"


def usage(command: Command) -> str:
    """The command and its arguments in one line."""
    return f"/{command.name} {command.usage}".rstrip()


def wrong_use(name: str, words: list[str]) -> ConfigError:
    """An error that says how a command is used."""
    given = " ".join([f"/{name}", *words])[:120]
    return ConfigError(f"{given}: use it as {usage(COMMANDS[name])}")


def whole_number(name: str, words: list[str]) -> int:
    """The one number that a command was given. Raises: ConfigError."""
    if len(words) != 1 or not words[0].isascii() or not words[0].isdigit():
        raise wrong_use(name, words)
    return int(words[0])
