"""A conversation as a model was trained to read it: its chat template, and the marks of its thoughts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmhpo.llm.base import Message

_MARKS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids up to where the reply begins; `thinks` says that it begins within a thought."""

    ids: list[int]
    thinks: bool = False


class Chat:
    """The chat template of one tokenizer.

    With `thinks` the model thinks before it answers, where its template knows thoughts; otherwise a thought that the
    template opens is closed at once.
    """

    def __init__(self, tokenizer: Any, *, thinks: bool = False) -> None:
        self._tokenizer = tokenizer
        template = str(tokenizer.chat_template or "")
        self.marks = next((pair for pair in _MARKS if pair[1] in template), None)
        self.thinks = thinks and self.marks is not None
        self._specials = sorted((str(token) for token in tokenizer.all_special_tokens), key=len, reverse=True)

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """The conversation, up to where its answer begins or goes on: a last turn of the assistant is the reply begun."""
        turns = [{"role": message.role, "content": self._plain(message.content)} for message in messages]
        begun = bool(turns) and turns[-1]["role"] == "assistant"
        if not self._tokenizer.chat_template:
            text = "\n\n".join(turn["content"] for turn in turns) + ("" if begun else "\n\n")
            return Prompt(self._tokenizer(text, add_special_tokens=True)["input_ids"])
        text, thinks = self._rendered(turns, begun), False
        if self.marks is not None and not begun:
            opened, closed = self.marks
            open_ = text.rstrip().endswith(opened)
            thinks = self.thinks
            if thinks and not open_:
                text += f"{opened}\n"
            elif open_ and not thinks:
                text = f"{text.rstrip()}\n\n{closed}\n\n"
        return Prompt(self._tokenizer(text, add_special_tokens=False)["input_ids"], thinks)

    def _rendered(self, turns: list[dict[str, str]], begun: bool) -> str:
        from jinja2 import TemplateError

        form = {
            "tokenize": False,
            "add_generation_prompt": not begun,
            "continue_final_message": begun,
            "enable_thinking": self.thinks,
        }
        try:
            return str(self._tokenizer.apply_chat_template(turns, **form))
        except TemplateError:  # some templates refuse a system turn: it goes in front of the first user turn
            system = [turn["content"] for turn in turns if turn["role"] == "system"]
            rest = [turn for turn in turns if turn["role"] != "system"] or [{"role": "user", "content": ""}]
            rest[0] = {**rest[0], "content": "\n\n".join([*system, rest[0]["content"]])}
            return str(self._tokenizer.apply_chat_template(rest, **form))

    def _plain(self, text: str) -> str:
        for token in self._specials:  # data must not end a turn or open another
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def without_thoughts(self, text: str) -> str:
        """A free reply without the thought that it begins with."""
        if self.marks is None or not text.lstrip().startswith(self.marks[0]):
            return text
        return text.partition(self.marks[1])[2].lstrip()
