"""Replies of the loopback server with something wrong in them."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import loopback
from loopback import Body, Fault, Service


def changed(change: Callable[[Body], None]) -> Fault:
    """The server's reply with something in it changed."""

    def answer(handler: BaseHTTPRequestHandler, service: Service) -> None:
        body = service.reply(service.asked)
        change(body)
        loopback.send(handler, 200, body)

    return answer


def says(text: str) -> Fault:
    """The server's reply with another text, whichever protocol it is of."""

    def change(body: Body) -> None:
        if "choices" in body:
            message = body["choices"][0]["message"]
            message |= {"content": text, "tool_calls": None}
        elif "output" in body:
            piece = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
            body["output"] = [
                {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [piece]}
            ]
        else:
            body |= {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}

    return changed(change)
