"""Replies that come piece by piece: server-sent events of the three protocols, put together to the body of a whole answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from llmhpo.llm.base import Completion, Request

OnText = Callable[[str], None]  # is told the reply as far as it has come, again and again
Event = dict[str, Any]


@runtime_checkable
class Streaming(Protocol):
    """A model that can show its reply while it writes."""

    def stream(self, request: Request, on_text: OnText) -> Completion:
        """As `complete`; `on_text` hears all of the text so far, each time there is more. A request that is sent again begins anew."""
        ...


def arguments(wire: str) -> dict[str, object]:
    """What a request needs besides, for its answer to come in events."""
    return {"stream": True, "stream_options": {"include_usage": True}} if wire == "chat" else {"stream": True}


def whole_body(wire: str, pieces: Iterable[bytes], on_text: OnText) -> bytes:
    """The body that the same answer would have had in one piece. What ends too early has none that can be read."""
    collect: _Collector = _Responses() if wire == "responses" else _Chat() if wire == "chat" else _Messages()
    said = ""
    for event in _events(pieces):
        if event.get("type") == "error" or "error" in event:
            return json.dumps(event).encode()
        collect.take(event)
        if len(collect.text) > len(said):
            said = collect.text
            on_text(said)
    return json.dumps(collect.body()).encode()


def _events(pieces: Iterable[bytes]) -> Iterator[Event]:
    """The JSON objects of a stream of server-sent events; other lines are left out."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                try:
                    event = json.loads(data)
                except ValueError:
                    continue
                if isinstance(event, dict):
                    yield event


class _Collector(Protocol):
    text: str

    def take(self, event: Event) -> None: ...

    def body(self) -> Event: ...


class _Responses:
    def __init__(self) -> None:
        self.text, self._whole = "", Event()

    def take(self, event: Event) -> None:
        kind = event.get("type")
        if kind in ("response.output_text.delta", "response.function_call_arguments.delta"):
            self.text += str(event.get("delta", ""))
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._whole = event.get("response") or {}

    def body(self) -> Event:
        return self._whole


class _Chat:
    def __init__(self) -> None:
        self.text, self._refusal, self._arguments = "", "", ""
        self._finish: object = None
        self._usage: object = None
        self._model: object = None

    def take(self, event: Event) -> None:
        self._model = event.get("model") or self._model
        self._usage = event.get("usage") or self._usage
        for choice in event.get("choices") or []:
            delta = choice.get("delta") or {}
            self._refusal += delta.get("refusal") or ""
            for call in delta.get("tool_calls") or []:
                self._arguments += (call.get("function") or {}).get("arguments") or ""
            self.text = self._arguments or self.text + (delta.get("content") or "")
            self._finish = choice.get("finish_reason") or self._finish

    def body(self) -> Event:
        message: Event = {"content": self.text, "refusal": self._refusal or None}
        if self._arguments:
            message = {"content": None, "tool_calls": [{"function": {"arguments": self._arguments}}]}
        choice = {"message": message, "finish_reason": self._finish}
        return {"choices": [choice], "usage": self._usage, "model": self._model}


class _Messages:
    def __init__(self) -> None:
        self.text, self._message = "", Event()
        self._blocks: dict[int, Event] = {}
        self._inputs: dict[int, str] = {}

    def take(self, event: Event) -> None:
        kind, index = event.get("type"), int(event.get("index") or 0)
        delta: Event = event.get("delta") or {}
        if kind == "message_start":
            self._message = dict(event.get("message") or {})
        elif kind == "content_block_start":
            self._blocks[index] = dict(event.get("content_block") or {})
        elif kind == "content_block_delta" and delta.get("type") == "text_delta":
            block = self._blocks.setdefault(index, {"type": "text", "text": ""})
            block["text"] = block.get("text", "") + str(delta.get("text", ""))
            self.text += str(delta.get("text", ""))
        elif kind == "content_block_delta" and delta.get("type") == "input_json_delta":
            self._inputs[index] = self._inputs.get(index, "") + str(delta.get("partial_json", ""))
            self.text += str(delta.get("partial_json", ""))
        elif kind == "message_delta":
            self._message |= {"stop_reason": delta.get("stop_reason")}
            self._message["usage"] = {**(self._message.get("usage") or {}), **(event.get("usage") or {})}

    def body(self) -> Event:
        for index, text in self._inputs.items():
            try:
                self._blocks[index]["input"] = json.loads(text)
            except (ValueError, KeyError):
                return {}
        return {**self._message, "content": [self._blocks[k] for k in sorted(self._blocks)]}
