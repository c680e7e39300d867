"""What a study's requests to the model cost, of all processes that send any: a file beside the study, so that caps bind them together.

The run and the talk about it (`llmhpo chat`) each keep their own account, and neither sees in time what the other spends. So who
is about to send a request enters here, under a lock, the most that it may cost, and sends it only where the caps allow that
beside all that was paid and all that is under way. The record of the study stays the truth where it tells of more.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmhpo.errors import BudgetError, LLMUnavailableError
from llmhpo.store.lease import Holder
from llmhpo.store.lock import locked
from llmhpo.store.storage import write_durably
from llmhpo.usage import Caps, Usage

_FILE, _LOCK = "purse.json", "purse.lock"
_LOOK_S = 0.1
Paid = Callable[[Usage], None]


class Purse:
    """The purse in a study's `folder`. A folder that was removed begins with an empty one."""

    def __init__(self, folder: Path) -> None:
        self._path, self._lock = folder / _FILE, folder / _LOCK
        self._me = asdict(Holder.this_process())
        self._left: dict[str, Usage] = {}  # what requests that are over have cost, as long as it is not written

    @contextlib.contextmanager
    def reserved(self, caps: Caps, spent: Usage, most: Usage, deadline: float) -> Iterator[Paid]:
        """Hold `most` back for a request, until the function that is given is told what it has cost.

        `spent` is what the caller knows to be spent, `deadline` on the monotonic clock: so long it is waited for requests that are
        under way, where these alone stand against this one. Without any cap nothing is kept. What is left without the function
        being told counts as spent; so does what a process held back that has died since.

        Raises: BudgetError; LLMUnavailableError where the purse cannot be written, or others held the rest until the deadline.
        """
        if caps == Caps():
            yield lambda _: None
            return
        key = uuid.uuid4().hex
        while (waits := self._enter(key, caps, spent, most)) is not None:
            if time.monotonic() > deadline:
                raise LLMUnavailableError(
                    f"requests under way hold the rest of the cap ({waits}); another try later may work"
                )
            time.sleep(_LOOK_S)
        cost: list[Usage] = []
        try:
            yield cost.append
        finally:
            self._leave(key, sum(cost, Usage()) if cost else most)

    def _enter(self, key: str, caps: Caps, spent: Usage, most: Usage) -> BudgetError | None:
        """Hold `most` back; why not yet, where only requests under way are against it. Raises: BudgetError."""
        with self._opened() as kept:
            under_way = self._count_ended(kept)
            paid = _larger(_usage(kept["paid"]), spent)
            kept["paid"] = asdict(paid)
            self._check(caps, paid, most, spent)
            try:
                caps.check(paid + under_way, most)
            except BudgetError as error:
                return error
            kept["asked"][key] = {"most": asdict(most), "by": self._me}
        return None

    def _check(self, caps: Caps, paid: Usage, most: Usage, spent: Usage) -> None:
        """Raises: BudgetError."""
        caps.check(spent, most)
        try:
            caps.check(paid, most)
        except BudgetError as error:
            raise BudgetError(
                f"{error}; {str(self._path)!r} tells of more than the study's own record: talk, what was cut off, or a study "
                "that stood here before, in which case remove it"
            ) from None

    def _count_ended(self, kept: dict[str, Any]) -> Usage:
        """Count as paid what was held back by processes that live no more, or not in sight; what the others hold back."""
        under_way, me = Usage(), Holder(**self._me)
        for key, entry in list(kept["asked"].items()):
            if Holder(**entry["by"]).lives(me, one_machine=True):
                under_way += _usage(entry["most"])
            else:
                kept["paid"] = asdict(_usage(kept["paid"]) + _usage(entry["most"]))
                del kept["asked"][key]
        return under_way

    def _leave(self, key: str, cost: Usage) -> None:
        self._left[key] = cost
        with (
            contextlib.suppress(LLMUnavailableError),
            self._opened(),
        ):  # where it cannot be written, the next opening does it
            pass

    @contextlib.contextmanager
    def _opened(self) -> Iterator[dict[str, Any]]:
        """What the purse holds, which is written back at the end. Raises: LLMUnavailableError."""
        try:
            with locked(self._lock):
                kept = self._read()
                before = json.dumps(kept)
                left = dict(self._left)
                for key, cost in left.items():
                    if kept["asked"].pop(key, None) is not None:
                        kept["paid"] = asdict(_usage(kept["paid"]) + cost)
                yield kept
                if (now := json.dumps(kept)) != before:
                    write_durably(self._path, now)
                for key in left:
                    self._left.pop(key, None)
        except OSError as error:
            raise LLMUnavailableError(
                f"{str(self._path)!r} cannot be written ({error.strerror}), and without it the caps on the model's bill cannot "
                "be kept: mend the folder"
            ) from None

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            raw = json.loads(self._path.read_text(encoding="utf-8"))
            # Sums, not copies: what is no number fails to add up, and the file counts as empty then.
            asked = {
                key: {"most": asdict(_usage(e["most"]) + Usage()), "by": asdict(Holder(**e["by"]))}
                for key, e in raw["asked"].items()
            }
            return {"paid": asdict(_usage(raw["paid"]) + Usage()), "asked": asked}
        return {"paid": asdict(Usage()), "asked": {}}


def _usage(raw: dict[str, Any]) -> Usage:
    return Usage(**raw)


def _larger(one: Usage, other: Usage) -> Usage:
    """The larger of each count."""
    usd = None if one.usd is None or other.usd is None else max(one.usd, other.usd)
    pairs = ((getattr(one, n), getattr(other, n)) for n in ("calls", "input_tokens", "cached_tokens", "output_tokens"))
    calls, input_tokens, cached, output_tokens = (max(pair) for pair in pairs)
    return Usage(calls, input_tokens, cached, output_tokens, usd, max(one.reasoning_tokens, other.reasoning_tokens))
