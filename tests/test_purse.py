"""Caps that bind all who ask a model for the same study, at the same time."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import llmhpo
from llmhpo.agents.conversation import Conversation
from llmhpo.errors import BudgetError, LLMUnavailableError
from llmhpo.llm.base import Completion, Message, Request
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.store import purse as purse_module
from llmhpo.store.purse import Purse
from llmhpo.usage import Caps, Usage

ONE = Usage(calls=1, input_tokens=60, output_tokens=40, usd=0.1)
HOLD = """
import sys, time
from pathlib import Path
from llmhpo.store.purse import Purse
from llmhpo.usage import Caps, Usage
with Purse(Path(sys.argv[1])).reserved(Caps(max_requests=9), Usage(), Usage(calls=1), time.monotonic() + 9) as paid:
    print("asked", flush=True)
    sys.stdin.readline()
    paid(Usage(calls=1))
"""


def ask(folder: Path, caps: Caps, cost: Usage = ONE, *, spent: Usage | None = None, wait_s: float = 0.0) -> None:
    """A request that may cost as much as `ONE`, and costs `cost`."""
    with Purse(folder).reserved(caps, spent or Usage(), ONE, time.monotonic() + wait_s) as paid:
        paid(cost)


def elsewhere(folder: Path) -> subprocess.Popen[str]:
    """Another process in the midst of a request."""
    words = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"
    return process


@pytest.mark.parametrize("caps", [Caps(max_requests=1), Caps(max_tokens=150), Caps(max_usd=0.15)])
def test_what_another_one_may_be_about_to_spend_counts(tmp_path: Path, caps: Caps) -> None:
    with (
        Purse(tmp_path).reserved(caps, Usage(), ONE, time.monotonic()),
        pytest.raises(
            LLMUnavailableError, match="requests under way hold the rest of the cap"
        ),  # for now, not for good
        Purse(tmp_path).reserved(caps, Usage(), ONE, time.monotonic()),
    ):
        pass


def test_a_purse_that_tells_of_more_than_the_record_is_named(tmp_path: Path) -> None:
    ask(tmp_path, Caps(max_requests=1))
    with pytest.raises(
        BudgetError, match=r"max_requests=1 is spent.*purse\.json.* tells of more than the study's own record"
    ):
        ask(tmp_path, Caps(max_requests=1))


def test_what_could_not_be_given_back_is_given_back_with_the_next_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    purse, cheap = Purse(tmp_path), Usage(calls=1, input_tokens=1)
    with purse.reserved(Caps(max_tokens=150), Usage(), ONE, 0.0) as paid:
        paid(cheap)
        monkeypatch.setattr(purse_module, "write_durably", _no_space)
    monkeypatch.undo()
    with purse.reserved(
        Caps(max_tokens=150), Usage(), ONE, time.monotonic()
    ) as paid:  # beside 100 held back it had no room
        paid(cheap)


def _no_space(path: Path, text: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_forked_child_keeps_no_lock_that_its_parent_has_left(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom llmhpo.store.lock import locked\npath = Path(sys.argv[1])\n"
        "with locked(path):\n    child = os.fork()\n    if child == 0:\n        time.sleep(100)\n        os._exit(0)\n"
        "with locked(path):\n    print('free', flush=True)\nos.kill(child, 9)\nos.waitpid(child, 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "lock")], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "free\n", done.stderr


def test_a_request_that_had_to_wait_has_the_time_that_is_left(tmp_path: Path) -> None:
    class Model(ScriptedModel):
        def complete(self, request: Request) -> Completion:
            given.append(request.deadline_s)
            return super().complete(request)

    given: list[float] = []
    talk = Conversation(
        Model(["{}"]),
        Caps(max_requests=1),
        Usage(),
        time.monotonic() + 30.0,
        [Message("user", "?")],
        purse=Purse(tmp_path),
    )
    with Purse(tmp_path).reserved(Caps(max_requests=9), Usage(), ONE, time.monotonic() + 9) as paid:
        waiting = threading.Thread(target=talk.ask, args=(9,))
        waiting.start()
        time.sleep(1.0)
        paid(Usage())
    waiting.join()
    assert given[0] < 29.5


def test_a_request_of_another_process_is_waited_for_and_what_it_left_is_spent(tmp_path: Path) -> None:
    with elsewhere(tmp_path) as other:
        assert other.stdin is not None
        begin = time.monotonic()
        threading.Timer(0.3, lambda: print(file=other.stdin, flush=True)).start()
        with pytest.raises(BudgetError, match="max_requests=1 is spent"):
            ask(tmp_path, Caps(max_requests=1), wait_s=30.0)
        assert 0.2 < time.monotonic() - begin < 20.0
        ask(tmp_path, Caps(max_requests=2))


def test_what_a_process_that_was_killed_was_about_to_spend_counts_as_spent(tmp_path: Path) -> None:
    with elsewhere(tmp_path) as other:
        other.kill()
        other.wait()
    with pytest.raises(BudgetError, match="max_requests=1 is spent"):
        ask(tmp_path, Caps(max_requests=1), wait_s=30.0)


def test_requests_that_cost_less_than_they_might_leave_room_for_more(tmp_path: Path) -> None:
    for _ in range(3):
        ask(tmp_path, Caps(max_tokens=140), Usage(calls=1, input_tokens=10, output_tokens=10, usd=0.0))
    with pytest.raises(BudgetError, match="160 tokens, over max_tokens=140"):
        ask(tmp_path, Caps(max_tokens=140))


def test_the_record_of_the_study_counts_where_it_tells_of_more(tmp_path: Path) -> None:
    ask(tmp_path, Caps(max_requests=6), spent=Usage(calls=5))
    with pytest.raises(BudgetError, match="max_requests=6 is spent"):
        ask(tmp_path, Caps(max_requests=6), spent=Usage(calls=1))  # an older snapshot of the same record


def test_a_request_that_was_left_is_paid_for_in_full(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Purse(tmp_path).reserved(Caps(max_requests=1), Usage(), ONE, 0.0):
        raise KeyboardInterrupt
    assert json.loads((tmp_path / "purse.json").read_text())["paid"]["output_tokens"] == ONE.output_tokens


def test_a_run_keeps_back_what_a_talk_may_be_spending(tmp_path: Path) -> None:
    folder, model = tmp_path / "runs" / "s", ScriptedModel(["{}"])
    with Purse(folder).reserved(Caps(max_requests=1), Usage(), ONE, time.monotonic()) as paid:
        llmhpo.optimize(
            lambda params: float(params["x"]), {"x": {"type": "float", "low": 0.0, "high": 1.0}}, n_trials=2, llm=model,
            max_requests=1, deadline_s=0.2, study_name="s", cwd=tmp_path, n_workers=1,
        )  # fmt: skip
        paid(ONE)
    kinds = {json.loads(line)["kind"] for line in (folder / "events.jsonl").read_text().splitlines()}
    assert ("consulted" in kinds, "request" in kinds) == (True, False)


def test_without_a_cap_nothing_is_written(tmp_path: Path) -> None:
    ask(tmp_path / "study", Caps())
    assert not (tmp_path / "study").exists()


def test_a_damaged_purse_is_begun_anew_from_the_record(tmp_path: Path) -> None:
    (tmp_path / "purse.json").write_text('{"paid": 3')
    with pytest.raises(BudgetError):
        ask(tmp_path, Caps(max_requests=5), spent=Usage(calls=5))


def test_a_purse_in_the_place_of_a_folder_holds_requests_back(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LLMUnavailableError, match="mend the folder"):
        ask(tmp_path / "file", Caps(max_requests=5))


def test_a_bill_of_which_a_part_has_no_price_keeps_to_no_cap_in_money(tmp_path: Path) -> None:
    ask(tmp_path, Caps(max_usd=9.0), Usage(calls=1, input_tokens=10, usd=None))
    with pytest.raises(BudgetError, match=r"max_usd=9\.0 cannot be kept"):
        ask(tmp_path, Caps(max_usd=9.0))


def test_where_the_record_alone_is_over_the_cap_the_purse_is_not_blamed(tmp_path: Path) -> None:
    ask(tmp_path, Caps(max_requests=9))
    with pytest.raises(BudgetError, match=r"^max_requests=1 is spent; raise it to let the model go on$"):
        ask(tmp_path, Caps(max_requests=1), spent=ONE)
