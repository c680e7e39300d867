"""What comes out of a study: `Result`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llmhpo.comparison import Confirmation
from llmhpo.errors import MissingExtraError
from llmhpo.events import StopReason
from llmhpo.revision import Revision
from llmhpo.space import Params, SearchSpace
from llmhpo.steering import Steering
from llmhpo.surrogates.incumbent import Estimate, estimates
from llmhpo.transfer import Transfer
from llmhpo.trial import IMPORTED, Batch, Context, Task, Trial, best_trial
from llmhpo.usage import Usage

if TYPE_CHECKING:
    import pandas as pd


_NEAR_END = 0.01  # of a range, on its scale
_FEW_VALUES = 4  # a range of fewer is a choice


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of a study. `best` and `default` are None where no such trial ended well.

    Where the task is `noisy`, the best configuration is the one with the best expected value, `estimate`, and `best` is its
    first trial. `confirmation` is what `optimize(..., confirm=k)` adds.

    `stopped` says why the run ended: "budget" (`n_trials`), "hopeless" where its first trials all failed for one reason that lies
    in the set-up, or "target", "stale", "gain", "wall" (see `StopRules`). It is None for a study that is not being run.
    """

    task: Task
    trials: tuple[Trial, ...]
    usage: Usage
    study_name: str
    storage: str | None
    space: SearchSpace
    seed: int
    stopped: StopReason | None = None
    estimate: Estimate | None = None
    confirmation: Confirmation | None = None
    batches: tuple[Batch, ...] = ()
    baseline: Revision | None = None
    transfers: tuple[Transfer, ...] = ()
    steering: Steering = field(default_factory=Steering)

    @property
    def context(self) -> Context:
        """All that the study knows, as its proposers see it."""
        known = Context(
            self.task, self.space, self.trials, None, self.seed, self.batches, self.baseline, self.transfers
        )
        return replace(known, steering=self.steering)

    @property
    def best(self) -> Trial | None:
        """The trial with the best value; where the task is noisy, the first one of the configuration of `estimate`."""
        if self.task.noisy:
            return None if self.estimate is None else self.estimate.trial
        return best_trial(self.trials, self.task)

    @property
    def best_params(self) -> Params | None:
        """The configuration of `best`."""
        return None if self.best is None else self.best.params

    @property
    def best_value(self) -> float | None:
        """The metric of `best`, in the user's units.

        Where the task is noisy it is the expected value of that configuration by the surrogate's posterior, and no single
        trial's: `estimate.mean` is the plain mean of its runs.
        """
        if self.estimate is not None:
            return self.estimate.value
        return None if self.best is None else self.best.value

    @property
    def default(self) -> Trial | None:
        """The trial of the default configuration, where it ended well; an imported one where that was run elsewhere."""
        mine = next((t for t in self.trials if t.proposal.source == "default" and t.value is not None), None)
        if mine is not None or not (self.transfers and self.space.has_default):
            return mine
        default = self.space.default()
        return next((t for t in self.trials if t.proposal.source == IMPORTED and t.params == default), None)

    @property
    def at_ends(self) -> list[str]:
        """The numbers of the best configuration that lie where their ranges end: wider ones may hold better.

        None of few values, and none whose default lies there: such an end, a share of 1 or a dropout of 0, is in the nature of it.
        """
        found = []
        for name, value in (self.best_params or {}).items():
            if name not in self.space:  # declared by an edit of the code
                continue
            param = self.space[name]
            if param.choices or param.size < _FEW_VALUES or not isinstance(value, int | float):
                continue
            place, usual = param.to_feature(value), param.default
            is_usual = isinstance(usual, int | float) and abs(param.to_feature(usual) - place) < _NEAR_END
            if min(place, 1.0 - place) < _NEAR_END and not is_usual:
                found.append(name)
        return found

    @property
    def sources(self) -> dict[str, int]:
        """How many trials came from which source, most first."""
        return dict(Counter(t.proposal.source for t in self.trials).most_common())

    def to_frame(self) -> pd.DataFrame:
        """One row a trial: number, value, status, source, seconds, rationale, `params_*`, `metrics_*`.

        Raises: MissingExtraError without pandas.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("Result.to_frame()", "pandas", "pandas") from None
        return pd.DataFrame([_row(t) for t in self.trials])


def _row(trial: Trial) -> dict[str, object]:
    outcome = trial.outcome
    return {
        "number": trial.number,
        "value": trial.value,
        "status": "running" if outcome is None else outcome.status,
        "source": trial.proposal.source,
        "seconds": None if outcome is None else outcome.seconds,
        "rationale": trial.proposal.rationale,
        **{f"params_{k}": v for k, v in trial.params.items()},
        **{f"metrics_{k}": v for k, v in (outcome.metrics if outcome else {}).items()},
    }


def result_of(context: Context, study_name: str, storage: str | None) -> Result:
    """The result as far as a study has come."""
    estimate = next(iter(estimates(context)), None) if context.task.noisy else None
    return Result(
        context.task,
        context.trials,
        context.usage,
        study_name,
        storage,
        context.space,
        context.seed,
        estimate=estimate,
        batches=context.batches,
        baseline=context.baseline,
        transfers=context.transfers,
        steering=context.steering,
    )
