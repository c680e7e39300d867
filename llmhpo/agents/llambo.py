"""LLAMBO's proposers and its surrogates' questions: zero-shot start, candidates for a target value, a ranking by the model itself.

Source: Liu, Astorga, Seedat and van der Schaar, "Large Language Models to Enhance Bayesian Optimization", ICLR 2024
(arXiv 2402.03921). `evals/arms/llambo.py` is the whole method as it was published; here its parts serve the portfolio.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from llmhpo.agents.advice import Advice
from llmhpo.agents.base import generator
from llmhpo.agents.conversation import Conversation, shares
from llmhpo.agents.questions import background
from llmhpo.agents.remarks import with_remarks
from llmhpo.agents.reply import UnreadableError, one_object, read_reply, reply_keys, reply_schema
from llmhpo.columns import columns, ideas
from llmhpo.errors import BudgetError, LLMError, LLMRequestError
from llmhpo.history import goal, show_number, space_card
from llmhpo.llm.base import Completion, JSONSchema, Sampler, Scorer, TokenLogprob, closed_object
from llmhpo.prompts import Prompt, as_data, as_line, load
from llmhpo.space import SearchSpace
from llmhpo.surrogates.acquisition import log_ei
from llmhpo.surrogates.base import Array
from llmhpo.surrogates.digits import HIGH, LOW, Spread, of_samples, of_scores, of_tokens
from llmhpo.surrogates.incumbent import settled
from llmhpo.surrogates.language import LANGUAGE_SURROGATES, TOP, GenerativeSurrogate, in_words
from llmhpo.surrogates.screen import MIN_FINISHED
from llmhpo.surrogates.warp import fit_warp
from llmhpo.trial import Batch, Context, Proposal, Provenance, Tally

_TEMPERATURE = 0.7  # appendix D
_ALTERNATIVES = 20
_SCORE_TOKENS, _WORD_TOKENS = 16, 12
_TOKENS_PER_VALUE, _TOKENS_SPARE = 14, 32
_SPACE_TOKENS = 560
_EXAMPLES = 12
_SCORE_SCHEMA = closed_object({"score": {"type": "integer", "minimum": LOW, "maximum": HIGH}})
_TOP_SCHEMA = closed_object({"top": {"enum": ["yes", "no"]}})


class Voice:
    """A model's answers to LLAMBO's questions, all on one bill: `Oracle` of the surrogates, and the samples of the proposers.

    `talk` is the conversation whose caps, deadline and bill count; what was said in it before is left aside.
    """

    def __init__(self, talk: Conversation, context: Context, advice: Advice) -> None:
        self.talk, self._context, self._advice = talk, context, advice
        self.model = talk.redact(talk.llm.name)
        self._system = load("system.v1").render()

    def _ask(self, prompt: str, **values: object) -> None:
        task = self._context.task
        about = {
            "task": as_data(task.text, 900, 220) or "not described",
            "space": space_card(self._context.space, _SPACE_TOKENS),
            "percent": round(100 * TOP),
        }
        self.talk = self.talk.anew(self._system, load(prompt).render(**(about | values)))

    def configurations(self, prompt: str, n: int, **values: object) -> Iterator[str]:
        """`n` independent replies that should each hold one configuration, as they come. Raises: LLMError, BudgetError."""
        space = self._context.space
        self._ask(prompt, keys=reply_keys(space, reasons=False), **values)
        asked = self.talk.messages[-1]
        self.talk.messages[-1] = replace(asked, content=with_remarks(asked.content, self._context))
        names = sum(self.talk.llm.count_tokens(name) for name in space.names)
        most = names + _TOKENS_PER_VALUE * len(space) + _TOKENS_SPARE
        together = n if isinstance(self.talk.llm, Sampler) else 1
        for _ in range(0, n, together):
            yield from self.talk.sample(together, most, _one_schema(space), _TEMPERATURE)

    def mark(self, examples: str, query: str) -> Spread | None:
        """See `Oracle`: from scored digits, else from the log-probabilities of an answer, else from samples."""
        self._ask("llambo-score.v1", examples=examples, query=query)
        if isinstance(self.talk.llm, Scorer):
            whole = self.talk.llm.count_tokens("47") > 1
            return of_scores(lambda texts: self._scored('{"score": ', texts), digit_by_digit=whole)
        replies = self._replies(_SCORE_TOKENS, _SCORE_SCHEMA)
        if (tokens := replies[0].logprobs) and (spread := of_tokens(tokens)) is not None:
            return spread
        marks = [v for r in replies if (v := _number(r.text)) is not None]
        return of_samples([v for v in marks if LOW <= v <= HIGH])

    def chance(self, examples: str, query: str) -> float | None:
        """See `Oracle`: from the two words' log-probabilities, else from votes."""
        self._ask("llambo-top.v1", examples=examples, query=query)
        if isinstance(self.talk.llm, Scorer):
            yes, no = self._scored('{"top": "', ("yes", "no"))
            return 1.0 / (1.0 + math.exp(min(700.0, no - yes)))
        replies = self._replies(_WORD_TOKENS, _TOP_SCHEMA)
        if (tokens := replies[0].logprobs) and (p := _yes_share(tokens)) is not None:
            return p
        votes = [v for r in replies if (v := _vote(r.text)) is not None]
        return sum(votes) / len(votes) if votes else None

    def _scored(self, opening: str, texts: Sequence[str]) -> tuple[float, ...]:
        found = self.talk.score(opening, texts)
        assert found is not None, "asked of a Scorer"
        return found

    def _replies(self, max_tokens: int, schema: JSONSchema) -> list[Completion]:
        """One with log-probabilities where the model tells them, else as many as are to be averaged."""
        first = self.talk.ask(max_tokens, schema, temperature=_TEMPERATURE, top_logprobs=_ALTERNATIVES)
        self.talk.messages.pop()
        if first.logprobs:
            return [first]
        texts = self.talk.sample(self._advice.samples - 1, max_tokens, schema, _TEMPERATURE)
        return [first, *(replace(first, text=text) for text in texts)]


def _one_schema(space: SearchSpace) -> JSONSchema:
    batch = reply_schema(space, 1, reasons=False)
    return batch["properties"]["configurations"]["items"]  # type: ignore[index,no-any-return]


def _number(text: str) -> float | None:
    value = _field(text, "score")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _vote(text: str) -> bool | None:
    return {"yes": True, "no": False}.get(str(_field(text, "top")).lower())


def _field(text: str, name: str) -> object:
    try:
        reply = one_object(text)
    except UnreadableError:
        return None
    return reply.get(name) if isinstance(reply, dict) else None


def _yes_share(tokens: Sequence[TokenLogprob]) -> float | None:
    """The probability of yes against no where the answer says either; None where it says neither."""
    for token in tokens:
        mass = {"yes": 0.0, "no": 0.0}
        for text, logprob in (dict(token.top) | {token.token: token.logprob}).items():
            if (word := text.strip(' "').lower()) in mass:
                mass[word] += math.exp(logprob)
        if token.token.strip(' "').lower() in mass:
            return mass["yes"] / (mass["yes"] + mass["no"])
    return None


# --- proposers --------------------------------------------------------------------------------------------------------


class _Samples:
    """Configurations sampled one by one: what of them is valid and new, and the tally of all."""

    def __init__(self, voice: Voice, prompt: Prompt) -> None:
        self.voice, self.prompt = voice, prompt
        self.tally = Tally(voice.model, prompt.name)
        self.found: list[Proposal] = []  # what was paid for, also where a later request failed

    def collect(self, context: Context, texts: Iterable[str]) -> list[Proposal]:
        """All that was found so far, with what these replies hold. Raises: as `Voice.configurations`."""
        space = context.space
        tried = columns(context).tried
        seen = {space.key(p.params) for p in (*ideas(context), *self.found)}
        for text in texts:
            number = self.voice.talk.number - 1
            provenance = Provenance(self.voice.model, self.prompt.name, self.prompt.hash, number)
            reading = read_reply(_as_batch(text), space)
            valid = [params for params, _ in reading.configurations]
            fresh = [p for p in valid if space.key(p) not in seen and space.key(p) not in tried]
            seen |= {space.key(p) for p in fresh}
            self.found += [Proposal(p, "llm", "", provenance) for p in fresh]
            self.tally = replace(
                self.tally,
                asked=self.tally.asked + 1,
                offered=self.tally.offered + reading.offered,
                inside=self.tally.inside + reading.inside,
                valid=self.tally.valid + len(valid),
                repeated=self.tally.repeated + len(valid) - len(fresh),
            )
        return self.found


class ZeroShotProposer(_Samples):
    """LLAMBO's warm start: configurations from what the model is told of the job, which may be next to nothing."""

    name = "llambo-warmstart"

    def __init__(self, voice: Voice, detail: str) -> None:
        super().__init__(voice, load("llambo-warmstart.v1"))
        self._detail = detail

    def propose(self, context: Context, n: int) -> list[Proposal]:
        """See `Proposer`. Raises: LLMError, BudgetError."""
        task = context.task
        lines = {
            "none": ["Task: an unnamed training job"],
            "partial": ["Task: a training job", f"Goal: {goal(task)}"],
            "full": [f"Task: {as_data(task.text, 900, 220) or 'not described'}", f"Goal: {goal(task)}"],
        }[self._detail]
        if self._detail == "full":
            lines += [found] if (found := background(context, 240)) else []
        shown = _bare(context.space) if self._detail == "none" else context.space
        texts = self.voice.configurations(
            self.prompt.name, n, about="\n".join(lines), space=space_card(shown, _SPACE_TOKENS)
        )
        return self.collect(context, texts)


class TargetProposer(_Samples):
    """LLAMBO's candidate sampler: configurations that should reach a value near the best. It needs trials that ended well."""

    name = "llambo"

    def __init__(self, voice: Voice, alpha: float) -> None:
        super().__init__(voice, load("llambo-candidate.v1"))
        self._alpha = alpha

    def propose(self, context: Context, n: int) -> list[Proposal]:
        """See `Proposer`; half of the samples see the examples in one random order, half in another. Raises: LLMError, BudgetError."""
        shown = settled(context)
        target = show_number(target_value(shown, self._alpha), 4)
        metric = as_line(context.task.metric, 60, 20)
        ranked = sorted(shown.finished, key=lambda t: context.task.loss(t.value or 0.0))[:_EXAMPLES]
        lines = [f"{metric} {show_number(t.value or 0.0)}: {in_words(t.params)}" for t in ranked]
        rng = generator(context, self.name)
        for share in (n - n // 2, n // 2):
            if share:
                order = "\n".join(lines[i] for i in rng.permutation(len(lines)))
                about = {"goal": goal(context.task), "metric": metric, "examples": order, "target": target}
                self.collect(context, self.voice.configurations(self.prompt.name, share, **about))
        return self.found


def target_value(context: Context, alpha: float) -> float:
    """The best value minus `alpha` times the range of values, in the metric's units and its sense; section 6.

    Where all values are equal, a tenth of their size stands for the range.
    """
    losses = np.array([context.task.loss(t.value) for t in context.finished if t.value is not None])
    spread = float(losses.max() - losses.min()) or 0.1 * float(np.abs(losses).max())
    loss = float(losses.min()) - alpha * spread
    return loss if context.task.direction == "minimize" else -loss


def _bare(space: SearchSpace) -> SearchSpace:
    """The space without what its author says of the parameters."""
    return SearchSpace([replace(p, doc="", unit="") for p in space.params])


def _as_batch(text: str) -> str:
    """One configuration as a reply of one; what cannot be read stays as it is, to be named."""
    try:
        return json.dumps({"configurations": [one_object(text)]})
    except UnreadableError:
        return text


# --- ranking, and all of it together ------------------------------------------------------------------------------------


def ranked_by_model(voice: Voice, context: Context, proposals: Sequence[Proposal], name: str) -> list[Proposal]:
    """Proposals from the most promising on, by the model's own surrogate `name`: expected improvement, or the chance to be good.

    Raises: LLMError, BudgetError.
    """
    space = context.space
    trials = [t for t in settled(context).finished if t.value is not None]
    losses = np.array([context.task.loss(t.value) for t in trials if t.value is not None])
    y = fit_warp(losses).forward(losses)
    surrogate = LANGUAGE_SURROGATES[name](voice, space, generator(context, name))
    surrogate.fit(space.encode([t.params for t in trials]), y)
    candidates = space.encode([p.params for p in proposals])
    if isinstance(surrogate, GenerativeSurrogate):
        scores: Array = surrogate.probability(candidates)
    else:
        prediction = surrogate.predict(candidates)
        scores = log_ei(prediction.mean, prediction.std, float(y.min()))
    return [proposals[i] for i in np.argsort(-scores, kind="stable")]


class Ranked(NamedTuple):
    """Proposals in an order, and what hindered a better one: "" where nothing did."""

    proposals: list[Proposal]
    problem: str = ""


def ranked(voice: Voice, context: Context, proposals: Sequence[Proposal], name: str) -> Ranked:
    """`ranked_by_model` where that is wanted and can be done; else as they are. What it costs is on the bill of `voice`."""
    if name == "none" or len(proposals) < 2 or len(context.finished) < MIN_FINISHED:
        return Ranked(list(proposals))
    try:
        return Ranked(ranked_by_model(voice, context, proposals, name))
    except LLMError as error:
        return Ranked(list(proposals), f"the ranking by {name} was given up: {error}")


def sampled_batch(talk: Conversation, context: Context, kind: str, n: int, advice: Advice) -> Batch:
    """A consultation by LLAMBO's proposers: sampled, perhaps ranked by the model, the first `n` of it.

    Whatever happens comes back as a `Batch`, never as an exception.
    """
    start, voice = time.monotonic(), Voice(talk, context, advice)
    proposer: ZeroShotProposer | TargetProposer = ZeroShotProposer(voice, advice.context)
    if context.finished:
        proposer = TargetProposer(voice, advice.alpha)
    error, fatal, problem = "", False, ""
    try:
        proposer.propose(context, n if not context.finished else max(n, advice.candidates))
    except LLMError as e:
        error, fatal = str(e), isinstance(e, LLMRequestError | BudgetError)
        problem = f"the sampling ended early: {e}"
    found = proposer.found
    if not error:
        found, problem = ranked(voice, context, found, advice.surrogate)
    usage, chosen = voice.talk.usage, found[:n]
    tokens, usd = shares(usage, chosen)
    charged = (replace(p, provenance=replace(p.provenance, tokens=tokens, usd=usd)) for p in chosen if p.provenance)
    tally = proposer.tally
    return Batch(
        kind=kind,
        at=len(context.trials),
        asked=n,
        proposals=tuple(charged),
        usage=usage,
        problems=(problem,) if problem and chosen else (),
        error="" if chosen else error,
        fatal=fatal and not chosen,
        seconds=time.monotonic() - start,
        tally=tally if tally.asked else None,
    )
