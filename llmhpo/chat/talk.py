"""Plain words: a model answers, and may call the commands as tools. What changes or spends is put to the person first.

Nothing but the model's own reply is ever taken for a call, and nothing but the person's own yes for leave.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from llmhpo.agents.conversation import Conversation
from llmhpo.chat.base import COMMANDS, Session, parse, usage
from llmhpo.errors import ConfigError, LLMHPOError
from llmhpo.llm import make_llm, resolve_auto
from llmhpo.llm.base import LLM, JSONSchema, Message, closed_object
from llmhpo.llm.redact import Redactor
from llmhpo.operations import StudyFile
from llmhpo.prompts import as_data, as_line, load
from llmhpo.store.purse import Purse
from llmhpo.usage import Caps, Usage

_MOST_CALLS = 5  # of commands, for one message of the person
_REPLY_TOKENS = 700
_OUTPUT_CHARS, _WORDS_CHARS = 3000, 4000
_KEPT_TURNS = 8  # of earlier talk, that a prompt begins with
_SAY = re.compile(r'"say"\s*:\s*"((?:[^"\\]|\\.)*)', re.DOTALL)
_UNCALLED = ("quit", "stop", "help")


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")
    say: str = ""
    command: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Talk:
    """A conversation about one study, kept in its folder; a later session goes on with it."""

    session: Session
    _model: LLM | None = None
    _spec: object = None
    _earlier: list[Message] = field(default_factory=list)
    _read: bool = False

    def answer(self, words: str, session: Session | None = None) -> None:
        """Answer the person, in `session` where that is another one.

        Raises: errors of llmhpo; KeyboardInterrupt, by what the session calls, leaves what was said before as it is.
        """
        session = session or self.session
        study = session.study()
        model = self._model_of(study)
        self._recall(study)
        asked = Message("user", as_data(words, _WORDS_CHARS))
        system = Message("system", load("chat.v1").render(commands=_commands_text()))
        context = study.context()
        talk = Conversation(
            model,
            _caps(context.steering.budget.over(study.config.caps), model),
            context.usage,
            time.monotonic() + study.config.deadline_s,
            [system, *self._earlier[-_KEPT_TURNS:], asked],
            lost=context.lost,
            purse=Purse(study.config.directory),
        )
        exchange = _Exchange(session, study, talk)
        try:
            exchange.run()
        finally:
            said = exchange.said
            self._keep(study, [asked, *([Message("assistant", _as_reply(" ".join(said)))] if said else [])])

    def _model_of(self, study: StudyFile) -> LLM:
        c = study.config
        if c.llm == "smollm2" or (
            c.llm == "auto" and resolve_auto() == "smollm2"
        ):  # seen: it answers any question with noise
            raise ConfigError(
                "smollm2 proposes trials, and is too small to talk; all can be done by command: /help lists them. "
                f'To talk: llm = "openai:MODEL" (or anthropic:MODEL) in {self.session.path}'
            )
        if self._model is None or self._spec != (c.llm, c.base_url):
            self._model, self._spec = make_llm(c.llm, base_url=c.base_url, price=c.price), (c.llm, c.base_url)
        if self._model is None:
            raise ConfigError(
                "there is no model to talk to; all can be done by command: /help lists them. "
                f'For a model: llm = "openai:MODEL" (or anthropic:MODEL) in {self.session.path}'
            )
        return self._model

    # --- kept ---------------------------------------------------------------------------------------------------------

    def _recall(self, study: StudyFile) -> None:
        if self._read:
            return
        self._read = True
        try:
            lines = _file(study).read_bytes().split(b"\n")[-2 * _KEPT_TURNS :]
        except OSError:
            return
        for line in lines:
            try:
                raw = json.loads(line)
                role, text = raw["role"], str(raw["text"])
            except (ValueError, KeyError, TypeError):
                continue
            if role in ("user", "assistant"):
                self._earlier.append(Message(role, text))

    def _keep(self, study: StudyFile, turns: list[Message]) -> None:
        redact = Redactor.from_environment()
        self._earlier += turns
        lines = [json.dumps({"role": m.role, "text": redact(m.content)}) + "\n" for m in turns]
        try:
            _file(study).parent.mkdir(parents=True, exist_ok=True)
            with _file(study).open("a", encoding="utf-8") as file:
                file.write("".join(lines))
        except OSError as error:
            self.session.say(f"note: {_file(study)} cannot be written ({error.strerror}); this talk is not kept")


@dataclass(slots=True)
class _Exchange:
    """A message of the person, and the turns of the model until it calls no more commands. `said` is what it told the person."""

    session: Session
    study: StudyFile
    talk: Conversation
    said: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Raises: as `Talk.answer`."""
        for left in range(_MOST_CALLS, -1, -1):
            answer = _Answer(self.session)
            reply = self._ask(answer)
            if reply.say.strip():
                self.said.append(as_data(reply.say, _WORDS_CHARS))
                answer.end(self.said[-1])
            if not reply.command:
                return
            if not left:
                self.session.say(f"(the model has called {_MOST_CALLS} commands; say more to let it go on)")
                return
            output = self._call(reply.command, reply.arguments)
            self.talk.say(
                f"Output of /{as_line(reply.command, 20)}:\n<data>\n{as_data(output, _OUTPUT_CHARS)}\n</data>"
            )

    def _ask(self, answer: _Answer) -> _Reply:
        """One turn. What it costs is counted for the study, whatever comes of it."""
        before = self.talk.usage
        self.talk.deadline = time.monotonic() + self.study.config.deadline_s  # the person may have thought for long
        try:
            completion = self.talk.ask(_REPLY_TOKENS, _schema(), on_text=answer.hear)
        finally:
            spent = self.talk.usage - before
            if spent != Usage():
                self.study.change("", lambda now: replace(now, talk=now.talk + spent))
        self.session.write("")  # left meanwhile: nothing of the reply counts any more
        begin, end = completion.text.find("{"), completion.text.rfind("}")
        try:
            return _Reply.model_validate(json.loads(completion.text[begin : end + 1]))
        except (ValueError, ValidationError, RecursionError):
            return _Reply(say=completion.text)  # prose: an answer that calls nothing

    def _call(self, name: str, arguments: str) -> str:
        """Do what the model asks for, where the person agrees; what it is to read about that."""
        line = f"/{name.strip().removeprefix('/')} {arguments}".strip()
        shown = as_line(line, 300)
        try:
            if "\n" in line or shown != " ".join(line.split()):
                raise ConfigError(f"{shown}: characters that cannot be shown; write plain text")
            command, words = parse(line)
            if command.name in _UNCALLED:
                raise ConfigError(f"/{command.name} is the person's alone")
            if command.kind_of(words) != "reads" and not self.session.ask(f"the model wants: {shown}   agree?"):
                self.session.say(f"not done: {shown}")
                return "The person said no. Do not call it again unless they ask for it."
            output = command(self.session, words)
        except LLMHPOError as error:
            output = f"error: {error}"
        self.session.say(f"{shown}\n{output}")
        return output


@dataclass(slots=True)
class _Answer:
    """What the model says, shown as it comes: whole words of it, as nothing that follows can change."""

    session: Session
    _shown: str = ""

    def hear(self, raw: str) -> None:
        """The JSON of a reply as far as it has come."""
        self.session.write("")
        found = _SAY.search(raw)
        if found is None:
            return
        try:
            text = as_data(json.loads(f'"{found[1]}"'), 10 * _WORDS_CHARS)
        except ValueError:  # cut within an escape
            return
        settled = text[: max(text.rfind(" "), text.rfind("\n")) + 1]
        if settled.startswith(self._shown) and len(settled) <= _WORDS_CHARS // 2:
            self.session.write(settled[len(self._shown) :])
            self._shown = settled

    def end(self, text: str) -> None:
        """All of it."""
        if self._shown and text.startswith(self._shown):
            self.session.write(text[len(self._shown) :] + "\n")
            return
        if self._shown:
            self.session.write("\n")
        self.session.say(text)


def _caps(caps: Caps, model: LLM) -> Caps:
    """As for a run: without a price, the cap on tokens bounds the bill alone."""
    return replace(caps, max_usd=None) if model.price is None and caps.max_tokens is not None else caps


def _file(study: StudyFile) -> Path:
    return study.config.directory / "chat.jsonl"


def _as_reply(text: str) -> str:
    """Earlier words of the model in the form that is asked of it."""
    return json.dumps({"say": text, "command": "", "arguments": ""}, ensure_ascii=False)


def _commands_text() -> str:
    lines = []
    for command in COMMANDS.values():
        if command.name not in _UNCALLED:
            asks = "" if command.kind == "reads" else " (asks)"
            lines.append(f"{usage(command).removeprefix('/')}: {command.help}{asks}")
    return "\n".join(lines)


def _schema() -> JSONSchema:
    names = ["", *(n for n in COMMANDS if n not in _UNCALLED)]
    text = {"type": "string"}
    return closed_object({"say": text, "command": {"type": "string", "enum": names}, "arguments": text})
