"""The MCP server, driven by the SDK's own client: over standard input and output, over HTTP, and in process."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

mcp = pytest.importorskip("mcp")

from llmhpo.mcp import Studies, make_server  # noqa: E402
from llmhpo.operations import StudyFile  # noqa: E402
from llmhpo.steering import Budget  # noqa: E402
from llmhpo.store.lease import who_runs  # noqa: E402

JOB = f"{sys.executable} -c \"import json, os; json.dump({{{{'loss': ({{x}} - 0.3) ** 2}}}}, open(os.environ['LLMHPO_RESULT'], 'w'))\""
SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}
STUDY: dict[str, Any] = {"name": "bowl", "words": "find the bottom", "metric": "loss", "direction": "minimize", "command": JOB,
         "space": SPACE, "n_trials": 6, "llm": "none"}  # fmt: skip
Talk = Callable[[Any], Awaitable[Any]]


def talk(to: Any, conversation: Talk) -> Any:
    async def go() -> Any:
        async with mcp.Client(to, read_timeout_seconds=60) as client:
            return await conversation(client)

    return asyncio.run(asyncio.wait_for(go(), 120))


async def call(client: Any, tool: str, /, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    found: dict[str, Any] = result.structured_content
    return found


async def refused(client: Any, tool: str, /, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    studies = Studies(tmp_path / "studies")
    yield make_server(studies)
    studies.close()


def over_stdio(root: Path) -> Any:
    return mcp.StdioServerParameters(command=sys.executable, args=["-m", "llmhpo", "mcp", str(root)])


def test_a_study_is_made_run_watched_and_reported_over_standard_input_and_output(tmp_path: Path) -> None:
    async def conversation(client: Any) -> dict[str, Any]:
        made = await call(client, "create_study", **STUDY)
        assert Path(made["file"]).exists()
        await call(client, "run", study="bowl")
        for _ in range(500):
            status = await call(client, "status", study="bowl")
            if not status["running"]:
                break
            await asyncio.sleep(0.2)
        assert (await call(client, "why", study="bowl", trial=0))["source"] == "default"
        page = await call(client, "report", study="bowl")
        assert Path(page["file"]).read_text().startswith("<!doctype html>")
        return status | await call(client, "best", study="bowl")

    seen = talk(over_stdio(tmp_path), conversation)
    assert seen["ended"] == 6, seen
    assert seen["value"] < 0.36
    assert seen["default"]["trial"] == 0


async def ask_and_tell(client: Any, n: int = 4) -> Any:
    """Train oneself; what is best then."""
    await call(client, "create_study", **STUDY)
    for _ in range(n):
        for trial in (await call(client, "ask", study="bowl"))["trials"]:
            told = await call(client, "tell", study="bowl", trial=trial["trial"], value=trial["params"]["x"])
    return told["best"]


def test_an_agent_that_trains_itself_asks_and_tells(server: Any) -> None:
    assert talk(server, ask_and_tell)["value"] < 0.9


def test_the_limits_of_the_study_hold_for_an_agent_that_trains_itself(server: Any, tmp_path: Path) -> None:
    async def conversation(client: Any) -> Any:
        await ask_and_tell(client, 1)
        file = tmp_path / "studies" / "bowl" / "study.toml"
        file.write_text(f"stop_at = 5.0\n{file.read_text()}")
        return await call(client, "ask", study="bowl", n=3)

    seen = talk(server, conversation)
    assert (seen["trials"], seen["n_left"]) == ([], 5)
    assert "reaches stop_at=5; a stricter stop_at, or none, goes on" in seen["stop"]


def test_no_more_trials_are_begun_than_the_study_is_to_have(server: Any) -> None:
    async def conversation(client: Any) -> Any:
        await call(client, "create_study", **STUDY)
        return await call(client, "ask", study="bowl", n=20)

    seen = talk(server, conversation)
    assert (len(seen["trials"]), seen["n_left"]) == (6, 0)
    assert "a larger n_trials goes on" in seen["stop"]


def test_tools_that_are_called_side_by_side_wait_for_each_other(server: Any) -> None:
    async def conversation(client: Any) -> Any:
        await call(client, "create_study", **STUDY)
        return await asyncio.gather(*(call(client, "ask", study="bowl") for _ in range(3)))

    assert {a["trials"][0]["trial"] for a in talk(server, conversation)} == {0, 1, 2}


def test_the_command_of_the_best_configuration_can_be_run(server: Any) -> None:
    async def conversation(client: Any) -> Any:
        await ask_and_tell(client, 1)
        return await call(client, "best", study="bowl")

    assert "({'loss': (0.9 - 0.3) ** 2}" in talk(server, conversation)["command"].replace("'\"'\"'", "'")


def test_it_is_served_over_http_on_this_machine_only(tmp_path: Path) -> None:
    port = free_port()
    words = [sys.executable, "-m", "llmhpo", "mcp", str(tmp_path), "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            listened = Path("/proc/net/tcp").read_text()
            assert f"0100007F:{port:04X}" in listened
            assert f"00000000:{port:04X}" not in listened
            told = talk(f"http://127.0.0.1:{port}/mcp", ask_and_tell)
        finally:
            process.terminate()
    assert told["value"] < 0.9


def _wait_for(port: int) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("the server does not listen")


def test_a_study_is_drafted_from_a_script_that_is_only_read(server: Any, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr', type=float, default=0.01)\n"
        f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    )
    given = {"name": "s", "words": "w", "metric": "loss", "direction": "minimize", "script": str(script), "llm": "none"}
    made = talk(server, lambda c: call(c, "create_study", **given))
    assert made["parameters"] == ["lr"]
    assert not (tmp_path / "ran").exists()


def test_metric_and_direction_are_taken_from_the_words_or_the_person_is_to_be_asked(server: Any) -> None:
    async def conversation(client: Any) -> tuple[str, str]:
        bare = {name: value for name, value in STUDY.items() if name not in ("metric", "direction")}
        told = await refused(client, "create_study", **bare)
        half = await refused(client, "create_study", **bare, metric="loss")
        made = await call(client, "create_study", **bare | {"words": "maximize accuracy"})
        assert 'metric = "accuracy"\ndirection = "maximize"' in made["text"]
        return told, half

    told, half = talk(server, conversation)
    assert "metric and direction missing: ask the person" in told
    assert "direction missing: ask the person" in half


def test_tools_say_which_of_them_spend(server: Any) -> None:
    async def conversation(client: Any) -> Any:
        return (await client.list_tools()).tools

    tools = {t.name: t.annotations for t in talk(server, conversation)}
    assert set(tools) >= {"create_study", "ask", "tell", "run", "status", "why", "best", "report"}
    assert {n for n, a in tools.items() if a.read_only_hint} == {"list_studies", "status", "best", "why"}
    assert {n for n, a in tools.items() if a.destructive_hint} == {"run", "ask"}


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("status", {"study": "nothing"}, "there is no study 'nothing'"),
        ("status", {"study": "../../etc"}, "is no name"),
        ("create_study", STUDY | {"name": "a/b"}, "is no name"),
        ("create_study", STUDY | {"name": "other", "space": {"x": {"type": "flaot"}}}, "type = 'flaot' is unknown"),
        ("create_study", STUDY | {"name": "other", "command": ""}, "give a script, a config file or a help text"),
        ("stop", {"study": "bowl"}, "is not being run; there is nothing to pause"),
        ("why", {"study": "bowl", "trial": 99}, "no study yet|has no trial 99"),
        ("tell", {"study": "bowl", "trial": 0, "value": 1.0}, "no open trial"),
    ],
)
def test_what_cannot_be_done_is_told_with_the_remedy(server: Any, tool: str, arguments: Any, said: str) -> None:
    async def conversation(client: Any) -> str:
        await call(client, "create_study", **STUDY)
        return await refused(client, tool, **arguments)

    message = talk(server, conversation)
    assert re.search(said, message), message
    assert "Traceback" not in message


def test_a_study_that_is_refused_leaves_no_file(server: Any, tmp_path: Path) -> None:
    talk(server, lambda c: refused(c, "create_study", **(STUDY | {"n_trials": 0})))
    assert not (tmp_path / "studies" / "bowl" / "study.toml").exists()


def test_a_run_is_stopped_by_another_server_than_the_one_that_started_it(server: Any, tmp_path: Path) -> None:
    talk(server, lambda c: call(c, "create_study", **(STUDY | {"command": "sleep 60 {x}"})))
    talk(server, lambda c: call(c, "run", study="bowl"))
    while talk(server, lambda c: call(c, "status", study="bowl"))["open"] != [0]:
        time.sleep(0.1)
    later = Studies(tmp_path / "studies")
    assert talk(make_server(later), lambda c: call(c, "stop", study="bowl"))["running"] is False
    assert talk(make_server(later), lambda c: call(c, "status", study="bowl"))["open"] == [0]


def test_a_run_that_confirms_is_stopped(tmp_path: Path) -> None:
    studies = Studies(tmp_path)
    studies.create_study(**(STUDY | {"command": "sleep 60 {x}"}))
    for begun in studies.ask("bowl", 2)["trials"]:
        studies.tell("bowl", begun["trial"], -begun["trial"])
    found = StudyFile.read(tmp_path / "bowl" / "study.toml")
    confirms = [sys.executable, "-m", "llmhpo", "confirm", str(found.path)]  # what a run does last
    process = studies._runs["bowl"] = subprocess.Popen(confirms, start_new_session=True)
    try:
        while who_runs(str(found.config.storage), "bowl:confirm") is None and process.poll() is None:
            time.sleep(0.1)
        assert process.poll() is None
        assert studies.stop("bowl")["running"] is False
    finally:
        process.kill()
        process.wait()


def test_what_a_chat_asks_for_reaches_an_agent_where_the_storage_lies_elsewhere(tmp_path: Path) -> None:
    studies = Studies(tmp_path / "studies")
    path = Path(studies.create_study(**STUDY)["file"])
    path.write_text(f'storage = "sqlite:///{tmp_path}/all.db"\n{path.read_text()}')
    StudyFile.read(path).change("budget trials 2", lambda now: replace(now, budget=Budget(n_trials=2)))
    assert studies.ask("bowl")["n_left"] == 1


def test_a_run_that_cannot_start_says_why(server: Any) -> None:
    async def conversation(client: Any) -> str:
        await call(client, "create_study", **(STUDY | {"command": "nosuchprogram {x}"}))
        return await refused(client, "run", study="bowl")

    assert "nosuchprogram" in talk(server, conversation)
