"""LLMSampler: the proposers of llmhpo for any Optuna study."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from llmhpo.agents.consult import Consultant
from llmhpo.agents.portfolio import Portfolio
from llmhpo.llm import make_llm
from llmhpo.llm.base import LLM
from llmhpo.space import SearchSpace
from llmhpo.store import batch_from_dict
from llmhpo.trial import Batch, Context, Outcome, Proposal, Task, Trial
from llmhpo.usage import Caps

_AUGMENT = 0.05  # ParEGO's rho


class LLMSampler(BaseSampler):
    """An Optuna sampler whose candidates come from a language model and a classical optimizer, screened together.

    `llm` is a spec ("openai:MODEL", "anthropic:MODEL", "smollm2", "local:PATH", "none", "auto") or an `LLM`. `task`
    describes the job in words. With `search_space` (ours, or Optuna distributions by name) the model is asked from the
    first trial on, and conditional parameters are known; without it the space is the intersection of what past trials
    used, and parameters outside it are sampled by TPE. Several objectives are scalarised anew for every trial.

    Where a trial came from stands in its user attribute "source", what the model cost in the study's attributes.

    Raises: ConfigError for a model that cannot be made.
    Source: scalarisation as ParEGO (Knowles 2006), augmented Chebyshev, rho = 0.05.
    """

    def __init__(
        self,
        llm: str | LLM | None = "auto",
        *,
        task: str = "",
        search_space: SearchSpace | Mapping[str, object] | None = None,
        metric: str = "value",
        n_trials: int | None = None,
        seed: int | None = None,
        base_url: str | None = None,
        max_tokens: int | None = None,
        max_usd: float | None = None,
        deadline_s: float = 120.0,
    ) -> None:
        model = make_llm(llm, base_url=base_url)
        caps = Caps(max_tokens=max_tokens, max_usd=max_usd)
        consultant = None if model is None else Consultant(model, caps=caps, deadline_s=deadline_s)
        self._portfolio = Portfolio(consultant)
        self._explicit = (
            search_space
            if search_space is None or isinstance(search_space, SearchSpace)
            else SearchSpace.from_dict(search_space)
        )
        self._task_text, self._metric, self._n_trials = task, metric, n_trials
        self._seed = secrets.randbelow(2**31) if seed is None else seed
        self._intersection = IntersectionSearchSpace()
        self._independent = TPESampler(seed=self._seed, multivariate=False, n_startup_trials=5)
        self._open: dict[int, Proposal] = {}  # proposals whose trials have not ended, by trial number
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def reseed_rng(self) -> None:
        """Draw a new seed: Optuna calls this where several workers share one sampler."""
        self._seed = secrets.randbelow(2**31)
        self._independent.reseed_rng()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The explicit search space, or the parameters that all past trials share."""
        if self._explicit is not None:
            return self._explicit.to_optuna()
        with self._lock:
            return self._intersection.calculate(study)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One configuration of `search_space`; inactive parameters are left out."""
        if not search_space:
            return {}
        with self._lock:
            space = self._explicit
            if space is None or set(space.names) != set(search_space):
                space = SearchSpace.from_optuna(search_space)
            context = self._context(study, trial, space)
            if self._portfolio.wants(context):
                batch = self._portfolio.consult(context)
                study.set_user_attr(f"{_batch_prefix(space)}{len(context.batches):05d}", asdict(batch))
                context = replace(context, batches=(*context.batches, batch))
            proposal = self._portfolio.suggest(context, 1)[0]
            self._open[trial.number] = proposal
        storage = study._storage
        storage.set_trial_user_attr(trial._trial_id, "source", proposal.source)
        if proposal.rationale:
            storage.set_trial_user_attr(trial._trial_id, "rationale", proposal.rationale)
        if proposal.provenance is not None:
            storage.set_trial_user_attr(trial._trial_id, "provenance", asdict(proposal.provenance))
        return dict(proposal.params)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter outside the relative space, by TPE."""
        with self._lock:
            return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Forget what was open."""
        with self._lock:
            self._open.pop(trial.number, None)

    # --- an Optuna study as our context -------------------------------------------------------------------------------

    def _context(self, study: optuna.Study, trial: FrozenTrial, space: SearchSpace) -> Context:
        frozen = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        directions = study.directions
        rng = np.random.default_rng([self._seed, trial.number])
        objective = _scalarise(frozen, directions, rng)
        trials = [t for t in (self._trial(f, space, objective) for f in frozen) if t is not None]
        single = len(directions) == 1
        maximize = single and directions[0] == StudyDirection.MAXIMIZE
        task = Task(
            text=self._task_text,
            metric=self._metric if single else f"{self._metric} ({len(directions)} objectives, scalarised)",
            direction="maximize" if maximize else "minimize",
        )
        left = None if self._n_trials is None else max(0, self._n_trials - len(trials))
        return Context(task, space, tuple(trials), left, self._seed, _batches(study, space))

    def _trial(self, frozen: FrozenTrial, space: SearchSpace, objective: Mapping[int, float]) -> Trial | None:
        """Our view of a trial; None where it does not hold a configuration of this space."""
        known = self._open.get(frozen.number)
        params = space.coerce({name: value for name, value in frozen.params.items() if name in space})
        if not isinstance(params, dict):
            if known is None or frozen.state.is_finished() or not isinstance(space.coerce(known.params), dict):
                return None
            params = known.params
        proposal = Proposal(params, frozen.user_attrs.get("source", "other"))
        if not frozen.state.is_finished():
            return Trial(frozen.number, proposal)
        value = objective.get(frozen.number, math.nan)
        if not math.isfinite(value):
            return Trial(frozen.number, proposal, Outcome("failed", message="no finite value"))
        return Trial(frozen.number, proposal, Outcome("ok", value))


def _scalarise(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], rng: np.random.Generator
) -> dict[int, float]:
    """One number a finished trial, by trial number.

    A single objective stays as it is. A pruned trial counts with its last report, but never for better than the median
    of the complete ones: it was stopped because it was behind.
    """
    complete = {t.number: t.values for t in trials if t.state == TrialState.COMPLETE and t.values is not None}
    if len(directions) == 1:
        out = {number: float(values[0]) for number, values in complete.items()}
        sign = -1.0 if directions[0] == StudyDirection.MAXIMIZE else 1.0
        finite = [sign * v for v in out.values() if math.isfinite(v)]
        for t in trials:
            if t.state == TrialState.PRUNED and t.intermediate_values and finite:
                last = sign * t.intermediate_values[max(t.intermediate_values)]
                out[t.number] = sign * max(last, float(np.median(finite)))
        return out
    rows = {n: v for n, v in complete.items() if all(math.isfinite(x) for x in v)}
    if not rows:
        return {}
    signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in directions])
    Y = np.array(list(rows.values()), dtype=float) * signs
    span = np.where(np.ptp(Y, axis=0) > 0, np.ptp(Y, axis=0), 1.0)
    weighted = (Y - Y.min(axis=0)) / span * rng.dirichlet(np.ones(len(signs)))
    scalar = weighted.max(axis=1) + _AUGMENT * weighted.sum(axis=1)
    return dict(zip(rows, scalar.tolist(), strict=True))


def _batch_prefix(space: SearchSpace) -> str:
    return f"llmhpo:{space.revision}:batch:"


def _batches(study: optuna.Study, space: SearchSpace) -> tuple[Batch, ...]:
    attrs = study.user_attrs
    prefix = _batch_prefix(space)
    return tuple(batch_from_dict(attrs[name]) for name in sorted(attrs) if name.startswith(prefix))
