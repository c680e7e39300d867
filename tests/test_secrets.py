"""No key is written, sent, shown or handed on, whatever a model, a service or a job says: the whole surface."""

from __future__ import annotations

import base64
import json
import os
import pickle
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cloudpickle
import pytest

import llmhpo
from llmhpo.agents import questions
from llmhpo.agents.consult import Consultant
from llmhpo.errors import ConfigError
from llmhpo.events import Event
from llmhpo.llm import make_llm
from llmhpo.llm.base import Completion, Request
from llmhpo.llm.redact import keyless_environment
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.space import SearchSpace
from llmhpo.trial import Context, Task
from llmhpo.usage import Caps

pytestmark = pytest.mark.usefixtures("patient")

NAMES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "SOME_SERVICE_API_KEY", "HF_TOKEN")
SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.5}}


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    key = f"{secrets.token_urlsafe(32)}/+="
    for name in NAMES:
        monkeypatch.setenv(name, key)
    return key


def forms(key: str) -> list[str]:
    """The key as text, quoted, and in base64 at every offset, without the letters at the ends that its neighbours change."""
    shifted = [base64.b64encode(b"\0" * shift + key.encode()).decode()[4 if shift else 0 : -4] for shift in range(3)]
    return [key, quote(key, safe=""), *(picture.rstrip("=") for picture in shifted)]


def leaks(text: str | bytes, key: str) -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    return [form for form in forms(key) if form.encode() in data]


def written(folder: Path) -> Iterator[bytes]:
    for path in folder.rglob("*"):
        yield os.fsencode(path.name)
        if path.is_file():
            yield path.read_bytes()


# A job that tells all that it can see: its environment, its parent's command line, its own, its files.
NOSY = """env; tr '\\0' '\\n' < /proc/self/environ; tr '\\0' ' ' < /proc/self/cmdline; tr '\\0' ' ' < /proc/$PPID/cmdline
cat "$LLMHPO_PARAMS"; echo '{{"value": {x}}}' > "$LLMHPO_RESULT" """


def test_a_study_with_a_talkative_model_and_a_nosy_job_writes_no_key(
    key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    said = [
        json.dumps({"configurations": [{"why": f"use {form}", "x": 0.1 + 0.01 * i}, {"why": "", "x": form, form: 1}]})
        for i, form in enumerate(forms(key))
    ]
    sent: list[Request] = []

    class Talkative(ScriptedModel):
        def complete(self, request: Request) -> Completion:
            sent.append(request)
            return replace(super().complete(request), model=key)

    events: list[Event] = []
    result = llmhpo.optimize(
        ["sh", "-c", NOSY], SPACE, task=f"the key is {key}", llm=Talkative(said * 4), n_trials=8, n_workers=2, seed=1,
        study_name="s", cwd=tmp_path, on_event=events.append,
    )  # fmt: skip
    assert all(t.value is not None for t in result.trials)
    assert result.sources.get("llm", 0) >= 1
    out, err = capfd.readouterr()
    assert [leaks(data, key) for data in written(tmp_path) if leaks(data, key)] == []
    assert leaks(out + err + caplog.text + repr(events) + repr(sent), key) == []
    assert len(sent) >= 2


def test_what_a_job_says_of_a_key_is_not_stored(key: str, tmp_path: Path) -> None:
    def job(p: dict[str, Any]) -> float:
        raise RuntimeError(f"{os.environ['OPENAI_API_KEY']} is no good for {p['x']}")

    result = llmhpo.optimize(job, SPACE, llm=None, n_trials=2, seed=1, study_name="s", cwd=tmp_path, progress=False)
    outcomes = [t.outcome for t in result.trials if t.outcome is not None]
    assert all("[key] is no good" in o.message for o in outcomes)
    assert [leaks(data, key) for data in written(tmp_path) if leaks(data, key)] == []


def test_a_key_in_the_command_is_not_stored(key: str, tmp_path: Path) -> None:
    command = ["sh", "-c", 'echo "{{\\"value\\": {x}}}" > "$LLMHPO_RESULT"', "job", f"--key={key}"]
    for n_trials in (1, 2):
        result = llmhpo.optimize(command, SPACE, llm=None, n_trials=n_trials, seed=1, study_name="s", cwd=tmp_path)
    assert all(t.value is not None for t in result.trials)
    assert [leaks(data, key) for data in written(tmp_path) if leaks(data, key)] == []


def test_a_key_in_the_command_is_not_on_the_page(key: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        f"""command = ["sh", "-c", "echo '{{{{\\"value\\": {{x}}}}}}' > $LLMHPO_RESULT", "job", "--key={key}"]
metric = "value"
direction = "minimize"
llm = "none"
n_trials = 2
task = "with {key}"
[space]
x = {{ type = "float", low = 0.0, high = 1.0 }}
"""
    )
    for command in (["run", "--plain"], ["report"], ["show"]):
        done = subprocess.run(
            [sys.executable, "-m", "llmhpo", command[0], str(tmp_path), *command[1:]],
            capture_output=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert leaks(done.stdout + done.stderr, key) == []
    pages = list(tmp_path.rglob("report.html"))
    assert len(pages) == 1
    assert "[key]" in pages[0].read_text()
    (tmp_path / "study.toml").unlink()
    assert [leaks(data, key) for data in written(tmp_path) if leaks(data, key)] == []


def test_an_outcome_that_is_told_is_stored_without_its_keys(key: str, tmp_path: Path) -> None:
    with llmhpo.Study(SPACE, llm=None, storage=f"sqlite:///{tmp_path / 's.db'}", study_name="s") as study:
        (trial,) = study.ask()
        study.tell(trial, failed=f"refused: {key}")
    assert [leaks(data, key) for data in written(tmp_path) if leaks(data, key)] == []


def test_a_prompt_is_sent_without_the_keys_in_its_words(key: str) -> None:
    sent: list[Request] = []

    class Spy(ScriptedModel):
        def complete(self, request: Request) -> Completion:
            sent.append(request)
            return super().complete(request)

    context = Context(Task(f"train with {key}", "loss"), SearchSpace.from_dict(SPACE))
    Consultant(Spy([""] * 2), caps=Caps()).consult(context, questions.warmstart(context, 2, reasons=True))
    assert leaks(repr(sent), key) == []
    assert "train with [key]" in repr(sent)


# --- what is handed on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["openai", "anthropic"])
def test_a_pickled_model_holds_no_key_and_finds_its_own(key: str, style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_llm(f"{style}:m", base_url="http://127.0.0.1:9/v1")
    data = pickle.dumps(model)
    assert leaks(data, key) == []
    monkeypatch.setenv(f"{style.upper()}_API_KEY", "another-key")
    again = pickle.loads(data)
    assert repr(again) == repr(model)
    assert again.name == f"{style}:m"


@pytest.mark.parametrize("style", ["openai", "anthropic"])
def test_a_model_whose_address_or_headers_may_hold_a_key_is_not_pickled(key: str, style: str) -> None:
    for more in ({"base_url": f"http://me:{key[:20]}@127.0.0.1:9/v1"}, {"default_headers": {"X-Key": key}}):
        with pytest.raises(ConfigError, match="pickle") as caught:
            pickle.dumps(make_llm(f"{style}:m", **{"base_url": "http://127.0.0.1:9", **more}))  # type: ignore[arg-type]
        assert leaks(str(caught.value), key) == []


def test_a_pickled_sampler_and_a_closure_hold_no_key(key: str) -> None:
    model = make_llm("openai:m", base_url="http://127.0.0.1:9/v1")
    sampler = llmhpo.LLMSampler(model, search_space=SPACE)
    assert leaks(pickle.dumps(sampler), key) == []
    assert leaks(cloudpickle.dumps(lambda p: (model, sampler, p)), key) == []


def test_processes_that_are_started_get_no_key(key: str) -> None:
    environment = keyless_environment()
    assert not set(NAMES) & set(environment)
    assert leaks(repr(environment), key) == []
    assert environment["PATH"] == os.environ["PATH"]
