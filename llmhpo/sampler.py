"""LLMSampler: the proposers of llmhpo for any Optuna study."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from llmhpo.agents.advice import Advice
from llmhpo.agents.portfolio import make_portfolio, warn_if_fatal
from llmhpo.errors import SpaceError
from llmhpo.llm import ModelSpec
from llmhpo.param import Param
from llmhpo.space import Params, SearchSpace
from llmhpo.store import batch_from_dict
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import Batch, Context, Outcome, Proposal, Task, Trial
from llmhpo.usage import Caps, Price, Usage

_AUGMENT = 0.05  # ParEGO's rho
_STARTUP = 5  # complete trials before independent sampling is TPE's; random until then
_PARAMS = "llmhpo:params"  # user attribute: the proposed configuration, of which an objective may use a part


class LLMSampler(BaseSampler):
    """An Optuna sampler whose candidates come from a language model and a classical optimizer, screened together.

    `llm` is a spec ("openai:MODEL", "anthropic:MODEL", "smollm2", "local:PATH", "none", "auto"), an `LLM`, a mapping or a list (see `make_llm`). `task`
    describes the job in words. With `search_space` (ours, or Optuna distributions by name) the model is asked from the
    first trial on, and conditional parameters are known; without it the space is the intersection of what past trials
    used, and parameters outside it (or with names or choices that fit no prompt) are sampled by TPE. Several objectives
    are scalarised anew for every trial. Of several workers in one process, one waits for the model while others go on. With `noisy` some
    trials repeat a configuration; `Study.best_trial` then is the luckiest one, `best_trial` of the sampler the best.

    Where a trial came from stands in its user attribute "source": "user" for an enqueued one, "user+gp" for one that
    was enqueued in part; what the model cost stands in the study's attributes.

    Raises: ConfigError for a model that cannot be made, and for `max_usd` where neither its price is known nor
    `max_tokens` given. SpaceError for a bad `search_space`.
    Source: scalarisation as ParEGO (Knowles 2006), augmented Chebyshev, rho = 0.05.
    """

    def __init__(
        self,
        llm: ModelSpec = "auto",
        *,
        task: str = "",
        search_space: SearchSpace | Mapping[str, object] | None = None,
        metric: str = "value",
        n_trials: int | None = None,
        noisy: bool = False,
        seed: int | None = None,
        base_url: str | None = None,
        max_tokens: int | None = None,
        max_usd: float | None = None,
        max_requests: int | None = None,
        price: Price | None = None,
        deadline_s: float = 120.0,
        advice: Advice | Mapping[str, object] | None = None,
    ) -> None:
        caps = Caps(max_tokens, max_usd, max_requests)
        self._portfolio = make_portfolio(
            llm, base_url=base_url, price=price, caps=caps, deadline_s=deadline_s, advice=advice
        )
        self._explicit = (
            search_space
            if search_space is None or isinstance(search_space, SearchSpace)
            else SearchSpace.from_dict(search_space)
        )
        self._task_text, self._metric, self._n_trials = task, metric, n_trials
        self._noisy = noisy
        self._seed = secrets.randbelow(2**31) if seed is None else seed
        self._intersection = IntersectionSearchSpace()
        self._independent = TPESampler(seed=self._seed, multivariate=False, n_startup_trials=_STARTUP)
        self._portfolio.log_requests(self._reserve)
        self._asking: tuple[optuna.Study, SearchSpace, str] | None = (
            None  # whose request is under way, and its attribute
        )
        self._reserved = Usage()  # the most that the consultation under way may have cost so far
        self._consulting = False  # whether a worker waits for the model: one at a time
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"]
        return state | {"_consulting": False, "_asking": None}

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
            shared = self._intersection.calculate(study)
        return {name: distribution for name, distribution in shared.items() if _is_sayable(name, distribution)}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Label an enqueued trial; what is sampled beside its fixed parameters adds to the label."""
        if _fixed(trial):
            study._storage.set_trial_user_attr(trial._trial_id, "source", "user")

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One configuration of `search_space`; inactive parameters are left out."""
        if not search_space:
            return {}
        space = self._explicit
        if space is None or set(space.names) != set(search_space):
            space = SearchSpace.from_optuna(search_space)
        with self._lock:
            context = self._context(study, trial, space)
            if self._consulting or self._portfolio.is_default_next(context) or not self._portfolio.wants(context):
                return self._begin(study, trial, context)
            self._consulting = True
        self._consult(study, trial, context)
        with self._lock:
            return self._begin(study, trial, self._context(study, trial, space))

    def _consult(self, study: optuna.Study, trial: FrozenTrial, context: Context) -> None:
        """Ask the model, without the lock: others propose meanwhile. The study keeps the batch under the asking trial."""
        batch, attribute = None, f"{_asking_prefix(context.space)}{trial.number:05d}"
        self._asking, self._reserved = (study, context.space, attribute), Usage()
        try:
            batch = self._portfolio.consult(context)
            warn_if_fatal(batch)
        finally:
            with self._lock:
                self._consulting, self._asking = False, None
                if batch is not None:
                    study.set_user_attr(f"{_batch_prefix(context.space)}{trial.number:05d}", asdict(batch))
                    if self._reserved != Usage():
                        study.set_user_attr(attribute, {})

    def _reserve(self, kind: str, data: Mapping[str, Any]) -> None:
        """Before a request: write down the most that it may cost, then see that all workers' requests together keep the caps.

        Of two that come at the same moment both may be refused, but never both pass. What a process that dies has written
        goes on to count.

        Raises: BudgetError.
        """
        if kind != "asking" or self._asking is None or self._portfolio.consultant is None:
            return
        study, space, attribute = self._asking
        self._reserved += Usage(**data["at_most"])
        study.set_user_attr(attribute, asdict(self._reserved))
        spent = sum((b.usage for b in _batches(study, space)), _reserved(study, space, but=attribute))
        self._portfolio.consultant.caps.check(spent, self._reserved)

    def _begin(self, study: optuna.Study, trial: FrozenTrial, context: Context) -> dict[str, Any]:
        """Choose a proposal, and write down what the trial will run and whose it is."""
        proposal = self._portfolio.suggest(context, 1)[0]
        fixed = _fixed(trial)
        params = _completed(context.space, fixed, proposal.params)
        attrs: dict[str, Any] = {_PARAMS: params}
        if all(name in fixed for name in params):
            attrs["source"] = "user"
        elif params != proposal.params:
            attrs["source"] = f"user+{proposal.source}"
        else:
            attrs |= {"source": proposal.source, "rationale": proposal.rationale}
            attrs["provenance"] = None if proposal.provenance is None else asdict(proposal.provenance)
        for name, value in attrs.items():
            if value:
                study._storage.set_trial_user_attr(trial._trial_id, name, value)
        return dict(proposal.params)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter outside the relative space, by TPE."""
        with self._lock:
            value = self._independent.sample_independent(study, trial, param_name, param_distribution)
        ended = study._get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED), use_cache=True)
        source = "random" if len(ended) < _STARTUP else "tpe"
        attrs = study._storage.get_trial(trial._trial_id).user_attrs
        before = attrs.get("source")
        if before is None:
            study._storage.set_trial_user_attr(trial._trial_id, "source", source)
        elif (before == "user" or param_name in attrs.get(_PARAMS, {})) and not before.endswith(f"+{source}"):
            study._storage.set_trial_user_attr(trial._trial_id, "source", f"{before}+{source}")
        return value

    def best_trial(self, study: optuna.Study) -> FrozenTrial:
        """The trial of the best configuration: with `noisy` the first one of that with the best expected value.

        Needs one objective and a search space, given or shared by the trials; `Study.best_trial` serves else.
        """
        if not self._noisy or len(study.directions) > 1:
            return study.best_trial
        space = self._explicit or SearchSpace.from_optuna(IntersectionSearchSpace().calculate(study))
        best = incumbent(self._context(study, None, space))
        return study.best_trial if best is None else study.trials[best.number]

    # --- an Optuna study as our context -------------------------------------------------------------------------------

    def _context(self, study: optuna.Study, trial: FrozenTrial | None, space: SearchSpace) -> Context:
        frozen = [t for t in study.get_trials(deepcopy=False) if trial is None or t.number != trial.number]
        left = None if self._n_trials is None else max(0, self._n_trials - len(frozen))
        directions = study.directions
        rng = np.random.default_rng([self._seed, len(frozen) if trial is None else trial.number])
        objective = _scalarise(frozen, directions, rng)
        trials = [t for t in (self._trial(f, space, objective) for f in frozen) if t is not None]
        single = len(directions) == 1
        maximize = single and directions[0] == StudyDirection.MAXIMIZE
        task = Task(
            text=self._task_text,
            metric=self._metric if single else f"{self._metric} ({len(directions)} objectives, scalarised)",
            direction="maximize" if maximize else "minimize",
            noisy=self._noisy,
        )
        return Context(
            task, space, tuple(trials), left, self._seed, _batches(study, space), lost=_reserved(study, space)
        )

    def _trial(self, frozen: FrozenTrial, space: SearchSpace, objective: Mapping[int, float]) -> Trial | None:
        """Our view of a trial; None for one that says nothing about this space.

        What the objective did not ask for is completed from the proposal, else from the defaults. A trial of ours that
        ran outside the space stands as one without outcome: it counts as begun, and teaches nothing.
        """
        given = {name: value for name, value in (_fixed(frozen) | frozen.params).items() if name in space}
        proposed = frozen.user_attrs.get(_PARAMS)
        if frozen.state == TrialState.WAITING or not (given or proposed):
            return None
        params = _completed(space, given, proposed or {})
        fits = all(space[name].check(value) is None for name, value in given.items() if name in params)
        if not fits and not proposed:
            return None
        proposal = Proposal(params, frozen.user_attrs.get("source", "other"))
        if not fits or not frozen.state.is_finished():
            return Trial(frozen.number, proposal)
        value = objective.get(frozen.number, math.nan)
        if not math.isfinite(value):
            return Trial(frozen.number, proposal, Outcome("failed", message="no finite value"))
        return Trial(frozen.number, proposal, Outcome("ok", value))


def _fixed(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that an enqueued trial brings with it."""
    fixed: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return fixed


def _completed(space: SearchSpace, *sources: Mapping[str, Any]) -> Params:
    """For each active parameter the first value among `sources` that fits, else its default or the middle."""
    raw: dict[str, object] = {}
    for param in space.params:
        candidates = [s[param.name] for s in sources if param.name in s] + [param.default, param.from_unit(0.5)]
        raw[param.name] = next(value for value in candidates if param.check(value) is None)
    params = space.coerce(space.drop_inactive(raw))
    assert isinstance(params, dict), params
    return params


def _is_sayable(name: str, distribution: BaseDistribution) -> bool:
    """Whether name and values have a place in a prompt and its reply."""
    try:
        Param(name, distribution)
    except SpaceError:
        return False
    return True


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


def _asking_prefix(space: SearchSpace) -> str:
    return f"llmhpo:{space.revision}:asking:"


def _reserved(study: optuna.Study, space: SearchSpace, but: str = "") -> Usage:
    """The most that requests may cost of which no batch tells: those under way in other workers, and those that died."""
    prefix = _asking_prefix(space)
    open_ = (raw for name, raw in study.user_attrs.items() if name.startswith(prefix) and name != but and raw)
    return sum((Usage(**raw) for raw in open_), Usage())
