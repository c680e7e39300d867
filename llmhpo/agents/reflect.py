"""The analyst: what was learned from the trials, computed by code, worded by the model, and checked again.

A sentence stays only if it speaks of its finding's parameter, in the finding's direction, with the finding's numbers. What
fails the check is replaced by the plain wording, so that the reader loses nothing and is told nothing wrong.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from llmhpo.agents.conversation import Conversation
from llmhpo.errors import BudgetError, LLMError
from llmhpo.llm.base import LLM, JSONSchema, Message, closed_object
from llmhpo.prompts import as_data, as_line, load
from llmhpo.store.purse import Purse
from llmhpo.surrogates.claims import Claim, claims
from llmhpo.trial import Context
from llmhpo.usage import Caps, Usage

_MOST = 8
_SENTENCE_CHARS = 300
_TOKENS_EACH, _TOKENS_SPARE = 60, 120
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?%?")
_HIGHER = re.compile(
    r"\b(?:higher|larger|bigger|greater|more|increas\w+|raise\w*|rais\w+|upper|above|large|high)\b", re.IGNORECASE
)
_LOWER = re.compile(r"\b(?:lower|smaller|less|fewer|decreas\w+|reduc\w+|below|small|low)\b", re.IGNORECASE)
_DENIAL = re.compile(
    r"\b(?:no|not|n't|never|neither|nor|without|fix\w*|cure\w*|prevent\w*|safe\w*|avoid\w*)\b", re.IGNORECASE
)
_HARM = re.compile(
    r"\b(?:no|not|n't|never|neither|nor|without|worse\w*|worst|hurt\w*|harm\w*|degrad\w*|bad\w*|poor\w*|avoid\w*|fail\w*|"
    r"unlike|contrary|against|instead)\b|n't\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Insight:
    """A sentence, the claim that it words, and whether the model worded it. `dropped` says what was wrong with its wording."""

    text: str
    claim: Claim
    worded: bool = False
    dropped: str = ""


@dataclass(frozen=True, slots=True)
class Reflection:
    """What was learned, and what it cost. `error` says why the model did not word it, where one was asked."""

    insights: tuple[Insight, ...]
    usage: Usage = field(default_factory=Usage)
    error: str = ""


class _Sentence(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    finding: str
    text: str


class _Reply(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    sentences: list[_Sentence]


def reflect(
    context: Context,
    llm: LLM | None = None,
    caps: Caps | None = None,
    *,
    deadline_s: float = 60.0,
    purse: Purse | None = None,
) -> Reflection:
    """What the trials of `context` show, in at most eight sentences; without a model in plain wording. Never raises.

    `purse` is that of a study whose run may ask its model at the same time.
    """
    found = claims(context)[:_MOST]
    plain = tuple(Insight(claim.text, claim) for claim in found)
    if llm is None or not found:
        return Reflection(plain)
    user = load("reflect.v1").render(
        task=as_data(context.task.text, 900, 220) or "not described",
        goal=f"{context.task.direction} {as_line(context.task.metric, 60, 20)}",
        findings="\n".join(
            f"F{k}: {as_line(c.text, 300)} ({as_line(c.statistic, 200)})" for k, c in enumerate(found, 1)
        ),
    )
    messages = [Message("system", load("system.v1").render()), Message("user", user)]
    end = time.monotonic() + deadline_s
    talk = Conversation(llm, caps or Caps(), context.usage, end, messages, lost=context.lost, purse=purse)
    try:
        completion = talk.ask(_TOKENS_SPARE + _TOKENS_EACH * len(found), _schema(len(found)))
    except (LLMError, BudgetError) as error:
        return Reflection(plain, talk.usage, str(error))
    sentences = _read(completion.text)
    if sentences is None:
        return Reflection(plain, talk.usage, "the model's reply was not the JSON that was asked for")
    return Reflection(_checked(found, sentences, context), talk.usage)


def _schema(n: int) -> JSONSchema:
    sentence = closed_object(
        {
            "finding": {"type": "string", "enum": [f"F{k}" for k in range(1, n + 1)]},
            "text": {"type": "string", "maxLength": _SENTENCE_CHARS},
        }
    )
    return closed_object({"sentences": {"type": "array", "items": sentence, "maxItems": n}})


def _read(text: str) -> list[_Sentence] | None:
    begin, end = text.find("{"), text.rfind("}")
    try:
        return _Reply.model_validate(json.loads(text[begin : end + 1])).sentences if begin >= 0 else None
    except (ValueError, ValidationError, RecursionError):
        return None


def _checked(found: Sequence[Claim], sentences: Sequence[_Sentence], context: Context) -> tuple[Insight, ...]:
    """The model's order and wording where that holds; the plain wording for all else."""
    by_name = {f"F{k}": claim for k, claim in enumerate(found, 1)}
    insights: dict[str, Insight] = {}
    for sentence in sentences:
        claim = by_name.get(sentence.finding)
        if claim is not None and sentence.finding not in insights:
            text = as_line(sentence.text, _SENTENCE_CHARS)
            problem = wrong(text, claim, context.space.names)
            insights[sentence.finding] = Insight(claim.text if problem else text, claim, not problem, problem)
    rest = (Insight(claim.text, claim) for name, claim in by_name.items() if name not in insights)
    return (*insights.values(), *rest)


def wrong(text: str, claim: Claim, names: Sequence[str]) -> str:
    """Why a sentence does not say what its claim says; "" where nothing was found."""
    said = {name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)}
    if said != {claim.parameter}:
        return f"it speaks of {', '.join(sorted(said)) or 'no parameter'}, not of {claim.parameter}"
    evidence = _numbers(f"{claim.text} {claim.statistic}") + [v for v in map(_as_number, claim.value) if v is not None]
    without_name = re.sub(rf"(?<!\w){re.escape(claim.parameter)}(?!\w)", "", text)
    for number in _numbers(without_name):
        if not any(math.isclose(number, known, rel_tol=0.02, abs_tol=1e-12) for known in evidence):
            return f"the number {number:g} is not in the finding"
    if problem := _wrong_sense(without_name, claim):
        return problem
    if claim.kind == "choice" and str(claim.value[0]).lower() not in text.lower():
        return f"it does not name the value {claim.value[0]!r}"
    return ""


def _wrong_sense(text: str, claim: Claim) -> str:
    """Whether it speaks for another end of the range; what cannot be told is taken for wrong."""
    higher, lower = bool(_HIGHER.search(text)), bool(_LOWER.search(text))
    if claim.sense and higher and lower:
        return "it speaks of higher and lower at once, which cannot be checked"
    says = "higher" if higher else "lower" if lower else ""
    if claim.sense and says and says != claim.sense:
        return f"it speaks for {says} {claim.parameter}, the finding for {claim.sense}"
    if denial := (_DENIAL if claim.kind == "failure" else _HARM).search(text):
        return f"{denial[0]!r} in it may turn its meaning, which cannot be checked"
    return ""


def _numbers(text: str) -> list[float]:
    found = []
    for match in _NUMBER.findall(text):
        value = float(match.rstrip("%"))
        found.append(value / 100 if match.endswith("%") else value)
    return found


def _as_number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
