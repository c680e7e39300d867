"""A model's service that repeats the key in all it says, and jobs that print what they can see: their own and their watcher's
environment and command line. The other cases have the key in their environment as well; here it goes out and comes back.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import llmhpo
from evals.chaos.base import KEYS, Row, in_child, key_in_processes, study_problems
from llmhpo.audit import verify
from llmhpo.store import load_study

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}
NAME = "chaos"
_TRIALS = 20
JOB = """
echo '{{'; env; tr '\\0' '\\n' < /proc/$PPID/environ; tr '\\0' '\\n' < /proc/$PPID/cmdline; echo '}}'
test $((LLMHPO_TRIAL % 3)) = 0 && exit 3
sleep 0.2; printf '{{"value": {x}}}' > "$LLMHPO_RESULT"
"""


class _Echo(BaseHTTPRequestHandler):
    """Good replies and bad ones in turn, each with the key that was sent, in several forms."""

    turns = itertools.count()
    asked: list[int] = []  # noqa: RUF012 - one server a process

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Authorization"].removeprefix("Bearer ")
        self.asked.append(key == os.environ[KEYS[0]])
        hidden = base64.b64encode(b"." + key.encode()).decode()
        match next(self.turns) % 4:
            case 0 | 2 as turn:
                wishes = [{"why": f"{key} {hidden}", "x": round(0.01 * (turn * 10 + k), 3)} for k in range(4)]
                content = json.dumps({"configurations": [*wishes, {"why": key, "x": key}]})
                message = {"role": "assistant", "content": content, "refusal": None}
                choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
                usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
                body = {
                    "id": key,
                    "object": "chat.completion",
                    "created": 0,
                    "model": key,
                    "choices": [choice],
                    "usage": usage,
                }
                self._answer(200, "application/json", json.dumps(body), key)
            case 1:
                self._answer(
                    500, "application/json", json.dumps({"error": {"message": f"you sent {key} {hidden}"}}), key
                )
            case _:
                self._answer(200, "text/html", f"<html>{key}</html>", key)

    def _answer(self, status: int, kind: str, text: str, key: str) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(data))), ("X-Request-Id", key)):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return


def run(rounds: int, folder: Path, _seed: int) -> Row:
    """So many studies with such a service."""
    start, shown = time.monotonic(), 0
    row = Row("canary", rounds)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["OPENAI_BASE_URL"] = f"http://127.0.0.1:{server.server_address[1]}/v1"
    consulted = 0
    for i in range(rounds):
        place = folder / f"study{i}"
        place.mkdir()
        pid = in_child(partial(_study, place))
        while (end := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            shown += key_in_processes()
            time.sleep(0.05)
        study = place / "runs" / NAME
        row.add({"controller failed": int(end[1] != 0)} | study_problems(study, NAME, _TRIALS))
        context = load_study(f"sqlite:///{study / 'study.db'}", NAME)
        consulted += sum(bool(batch.proposals) for batch in context.batches)
        (place / "shown").write_text(
            repr(context) + repr(verify(study / "events.jsonl", context, NAME))
        )  # what a user may see
    server.shutdown()
    server.server_close()
    del os.environ["OPENAI_BASE_URL"]
    row.add({"key shown": shown, "key never sent": int(not any(_Echo.asked)), "never consulted": int(consulted == 0)})
    row.seen |= {"requests": len(_Echo.asked), "good replies": consulted, "seconds": round(time.monotonic() - start)}
    return row


def _study(place: Path) -> None:
    llmhpo.optimize(
        ["sh", "-c", JOB], SPACE, llm="openai:m", n_trials=_TRIALS, n_workers=2, seed=1, study_name=NAME, cwd=place,
        progress=False,
    )  # fmt: skip
