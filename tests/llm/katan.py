"""A model server that nobody here wrote: llm-katan, which ignores schemas and makes its tool arguments up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ports import free_port

from llmhpo.llm import smollm2


@contextmanager
def katan_server() -> Iterator[str]:
    """The address of llm-katan with SmolLM2; skips the test where nobody has installed it."""
    folder = os.environ.get("LLMHPO_KATAN")
    if not folder:
        pytest.skip("LLMHPO_KATAN names no folder with llm-katan; run: make katan")
    port = free_port()
    model = smollm2.install(print)
    command = [
        sys.executable,
        "-c",
        "from llm_katan.cli import main; main()",
        "--model",
        str(model),
        "--name",
        "smollm2",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-quantize", "--providers", "openai,anthropic"]
    environment = {**os.environ, "PYTHONPATH": folder, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(url, server)
            _warm(url)
            yield url
        finally:
            server.kill()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 110
    while time.monotonic() < until:
        assert server.poll() is None, "llm-katan does not start"
        try:
            urllib.request.urlopen(f"{url}/health", timeout=30).close()
        except OSError:
            time.sleep(0.3)
        else:
            return
    pytest.fail("llm-katan is not there after 110 s")


def _warm(url: str) -> None:
    """The first request loads the model."""
    asked = {"model": "smollm2", "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(asked).encode(),
        {"content-type": "application/json", "authorization": "Bearer any"},
    )
    urllib.request.urlopen(request, timeout=110).close()
