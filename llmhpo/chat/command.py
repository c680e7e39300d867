"""`llmhpo chat`: a session in the terminal, or line by line where there is none.

The line to type on is there before the study is read, which takes longer: everything heavy is imported by the watcher's thread.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from llmhpo.chat.background import Background
from llmhpo.chat.base import Session, heavy, parse
from llmhpo.errors import LLMHPOError, MissingExtraError

if TYPE_CHECKING:
    from llmhpo.chat.screen import Screen
    from llmhpo.chat.talk import Talk
    from llmhpo.operations import StudyFile
    from llmhpo.trial import Context

_WORDS = 200  # characters of a task that the greeting shows
_MOST_TOLD = 5  # trials that have ended since the last look
_LOOK_S, _SHARE = 1.0, 0.25  # the watcher looks once a second, and takes a quarter of a core for it at most


def chat_command(
    study: Annotated[Path, typer.Argument(help="study.toml, or the folder it lies in")] = Path("study.toml"),
) -> None:
    """Talk about a study while it runs: commands with a slash, and plain words where there is a model."""
    path = study / "study.toml" if study.is_dir() else study
    draws = os.environ.get("TERM", "dumb") not in ("dumb", "unknown")  # Emacs' shell and the like do not
    if draws and sys.stdin.isatty() and sys.stdout.isatty():
        try:
            from llmhpo.chat.screen import Screen
        except ImportError:
            raise MissingExtraError("llmhpo chat", "chat", "prompt-toolkit") from None
        _in_terminal(path, Screen(path.parent / ".llmhpo_history"))
    else:
        _line_by_line(path)


def _in_terminal(path: Path, screen: Screen) -> None:
    session = Session(path, screen.say, screen.ask, screen.write)
    front = _Front(session, screen)
    screen.busy = front.what
    screen.say(_greeting(path))
    watcher = threading.Thread(target=_watch, args=(session, screen), name="llmhpo-watch", daemon=True)
    watcher.start()
    screen.run(front.take, front.stop)


class _Front:
    """What becomes of the lines that are typed: commands in one thread, the model's answers in another."""

    def __init__(self, session: Session, screen: Screen) -> None:
        self._session, self._screen = session, screen
        self._commands, self._answers = Background(session, "command"), Background(session, "answer")
        self._talks = _Talks(session)

    def take(self, line: str) -> None:
        """Begin what a line asks for."""
        if not line.lstrip().startswith("/"):
            if not self._answers.put("the model answers", lambda session: self._answer(line, session)):
                self._session.say("(the model reads that when it has answered; /stop drops both)")
            return
        try:
            command, words = parse(line)
        except LLMHPOError as error:
            self._session.say(f"error: {error}")
            return
        if command.name == "stop":
            if not self.stop():
                self._session.say("nothing is under way")
        elif command.name == "quit":
            self._commands.put("/quit", lambda _: self._screen.leave())
        else:
            self._commands.put(f"/{command.name}", lambda session: session.say(command(session, words)))

    def _answer(self, words: str, session: Session) -> None:
        self._screen.end_line()  # an answer that was stopped may have begun one
        self._talks.answer(words, session)

    def what(self) -> str:
        """What is under way, for the status line."""
        answering, doing = self._answers.what, self._commands.what
        if self._screen.asks:
            return "the model waits for your y or n (Ctrl-C stops it)"
        if answering:
            return f"{answering} (Ctrl-C stops it)"
        return f"{doing} (Ctrl-C leaves it)" if doing else ""

    def stop(self) -> bool:
        """Stop the model's answer, else leave the command that is under way; whether there was any."""
        what = self._answers.stop()
        if not what and self._screen.asks:
            what = "the question"  # of an answer that was stopped just before it asked
        if what:
            self._screen.refuse()
            self._screen.end_line()
        else:
            what = self._commands.stop()
        if what:
            self._session.say("(stopped)" if what.startswith("the") else f"(left {what}; what it has begun may go on)")
        return bool(what)


class _Talks:
    """The talk, made when it is needed: it takes a model's client."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._talk: Talk | None = None

    def answer(self, words: str, session: Session | None = None) -> None:
        """Answer the person."""
        if self._talk is None:
            self._talk = cast("Talk", heavy("chat.talk").Talk(self._session))
        self._talk.answer(words, session)


def _is_over(session: Session, line: str, talk: Callable[[str], None]) -> bool:
    """Do what a line says; whether it was the last."""
    try:
        if not line.lstrip().startswith("/"):
            talk(line)
            return False
        command, words = parse(line)
        if command.name == "quit":
            return True
        session.say(command(session, words))
    except LLMHPOError as error:
        session.say(f"error: {error}")
    return False


def _line_by_line(path: Path) -> None:
    """Without a terminal nobody can agree: what the model wants to change or spend is not done."""

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def refuse(question: str) -> bool:
        write(f"{question} nobody can agree without a terminal; type the command to have it\n")
        return False

    session = Session(path, lambda text: write(text.rstrip("\n") + "\n"), refuse, write)
    talks = _Talks(session)
    for raw in sys.stdin.buffer:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if line.strip() and _is_over(session, line, talks.answer):
            break


def _greeting(path: Path) -> str:
    """What can be said at once."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        words = " ".join(str(raw.get("task", "")).split())
        words = words if len(words) <= _WORDS else f"{words[:_WORDS]}..."
        about = f"{raw.get('direction', '?')} {raw.get('metric', '?')}: {words}"
    except OSError:
        about = f"there is no study in {path} yet: /task SCRIPT METRIC minimize|maximize WHAT IS TRAINED drafts one"
    except ValueError as error:
        about = f"{path} is not valid TOML ({error}); mend it, it is read again at every command"
    shown = "".join(c if c.isprintable() else " " for c in about)
    return f"llmhpo chat, {path}\n{shown}\n/help lists the commands; other words go to the model."


# --- what goes on -----------------------------------------------------------------------------------------------------


def _watch(session: Session, screen: Screen) -> None:
    """Keep the status line, and tell of trials and runs that end."""
    look = _Look(session, screen)
    while True:
        start = time.thread_time()
        try:
            look.once()
        except LLMHPOError as error:
            screen.status = " ".join(str(error).split())[:200]
            look.stamp = None
        except Exception as error:  # noqa: BLE001 - the status line must not end the session
            screen.status = f"the study cannot be read now: {type(error).__name__}"
            look.stamp = None
        time.sleep(max(_LOOK_S, (time.thread_time() - start) * (1 / _SHARE - 1)))


class _Look:
    """What the status line was last made of."""

    def __init__(self, session: Session, screen: Screen) -> None:
        self._session, self._screen = session, screen
        self._looking: Any = heavy("chat.looking")
        self._study: StudyFile | None = None
        self._context: Context | None = None
        self._ended: int | None = None  # trials that the person knows of
        self._runs = False
        self.stamp: object = None

    def once(self) -> None:
        """Read what has changed. Raises: errors of llmhpo."""
        study = self._study
        if study is None or not self._session.path.exists():
            study = self._study = self._session.study()
        stamp = (study.stamp, _mtime(self._session.path))
        if self._context is None or stamp != self.stamp or study.stamp is None:
            study = self._study = self._session.study()
            self._context, self.stamp = study.context(), stamp
            self._screen.names = self._context.space.names
            self._tell_ended(self._context)
        running = study.running()
        self._screen.status = self._looking.headline(study, self._context, running)
        if self._runs and running is None:
            words = self._looking.last_words(study)
            self._screen.say(f"the run has ended: {words}" if words else "the run has ended")
        self._runs = running is not None

    def _tell_ended(self, context: Context) -> None:
        ended = [t for t in context.trials if t.outcome is not None]
        for trial in [] if self._ended is None else ended[self._ended :][-_MOST_TOLD:]:
            best = context.best is not None and context.best.number == trial.number
            self._screen.say(self._looking.ended(trial) + (" (best so far)" if best else ""))
        self._ended = len(ended)


def _mtime(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
