"""Ask and tell: a study whose trials the caller runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from llmhpo.agents.advice import Advice
from llmhpo.agents.base import Search, asked
from llmhpo.agents.portfolio import make_portfolio, warn_if_fatal
from llmhpo.api import Space, as_space
from llmhpo.code.lineage import Lineage
from llmhpo.comparison import Confirmation
from llmhpo.config import file_name
from llmhpo.confirmation import Plan, Rerun, open_plan
from llmhpo.editing import Editing
from llmhpo.errors import ConfigError
from llmhpo.llm import ModelSpec
from llmhpo.result import Result, result_of
from llmhpo.rules import Stop, StopRules, Stopwatch, check
from llmhpo.space import Params
from llmhpo.store import MOST_TOGETHER, Store
from llmhpo.store.journal import journal_path
from llmhpo.store.others import WarmStart, check_warm_start, take_over
from llmhpo.store.purse import Purse
from llmhpo.store.storage import sqlite_path
from llmhpo.store.wishes import Wishes, take_in
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import Context, Direction, Outcome, Task, Trial
from llmhpo.usage import Caps, Price


class Study:
    """A study that is asked and told: the caller runs the trials.

    Arguments as for `optimize`. Without `storage` and `study_name` it lives in memory. `n_trials` is only a hint to the
    proposers on how long the study will be. With `editable` the model may edit code below `cwd`, `data` aside: `checkout` writes what
    a trial is to run, and whoever runs it has to see to it that it does no harm. Trials that were asked for and never told stay open: `pending` lists
    them, also after a restart. What a person asks for meanwhile (`llmhpo chat`) holds from the next `ask` on. Use it as a context manager, or `close` it.

    Raises: ConfigError, SpaceError, StoreError.
    """

    def __init__(
        self,
        space: Space,
        *,
        task: str = "",
        metric: str = "value",
        direction: Direction = "minimize",
        n_trials: int | None = None,
        noisy: bool = False,
        llm: ModelSpec = "auto",
        storage: str | None = None,
        study_name: str | None = None,
        seed: int | None = None,
        max_tokens: int | None = None,
        max_usd: float | None = None,
        max_requests: int | None = None,
        stop_at: float | None = None,
        stop_stale: int | None = None,
        stop_gain: float | None = None,
        max_wall_s: float | None = None,
        base_url: str | None = None,
        price: Price | None = None,
        deadline_s: float = 120.0,
        advice: Advice | Mapping[str, object] | None = None,
        warm_start: WarmStart | Sequence[WarmStart] = (),
        editable: Sequence[str] = (),
        edits: Mapping[str, object] | None = None,
        data: Sequence[str | Path] = (),
        cwd: str | Path = ".",
        _directory: Path | None = None,
    ) -> None:
        self.space = as_space(space)
        self.study_name = study_name or f"study-{self.space.revision}"
        if storage is None and study_name is not None:
            storage = f"sqlite:///{Path('runs').resolve() / file_name(study_name) / 'study.db'}"
        self.storage, self.n_trials = storage, n_trials
        caps = Caps(max_tokens, max_usd, max_requests)
        self._rules = StopRules(stop_at, stop_stale, stop_gain, max_wall_s)
        folder = _directory or _folder(storage, self.study_name)
        purse = None if storage is None else Purse(folder)
        portfolio = make_portfolio(
            llm, base_url=base_url, price=price, caps=caps, deadline_s=deadline_s, advice=advice, purse=purse
        )
        self._is_closed = False
        self._confirm_store: Store | None = None  # opened when it is needed
        editing = Editing.of(
            editable,
            edits or {},
            root=Path(cwd).resolve(),
            data=[Path(cwd).resolve() / path for path in data],
            scoring=None,
            directory=folder,
        )
        if editing is not None and storage is None:
            raise ConfigError(f"editable={list(editable)!r} needs a study that is kept; give a study_name or a storage")
        objective = Task(task, metric, direction, noisy=noisy)
        log = journal_path(storage, self.study_name)
        check_warm_start(warm_start, edits_code=editing is not None)
        self._wishes = None if storage is None else Wishes(folder)
        self._search: Search = portfolio
        self._lineage: Lineage | None = None
        self._store = Store(storage, self.study_name, self.space, objective, seed=seed, log=log)
        try:
            take_over(self._store, warm_start)
            self._take_in()
            if editing is not None:
                self._search = editing.search(portfolio, editing.begin(self._store, folder))
                self._lineage = editing.lineage(folder)
        except BaseException:
            self._store.close()
            raise
        self._watch = Stopwatch(max_wall_s, self._store.wall_s, self._store.keep_wall)
        self._search.log_requests(self._store.log)
        self._log_session(n_trials)

    def _log_session(self, n_trials: int | None) -> None:
        model, settings = self._search.model, self._search.about
        about = None if model is None else {"name": model.name, "compact": model.compact}
        session = {"n_trials": n_trials, "workers": None, "model": about}
        self._store.log("session", session if settings is None else session | {"edits": settings})

    def ask(self, n: int = 1) -> list[Trial]:
        """Begin `n` trials: committed as running before they are returned. Waits for the model where it is due."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ConfigError(f"ask({n!r}): give a whole number of trials from 1 on")
        self._watch.save_if_due()
        self._take_in()
        context = self._context()
        begun: list[Trial] = []
        note: dict[str, object] = {}
        if not (n == 1 and self._search.is_default_next(context)):
            wanted, service = asked(self._search, context)
            if wanted:
                self._store.ask(context, wanted, service)
                batch = self._search.consult(context)
                self._store.record(batch)
                warn_if_fatal(batch)
            else:
                note["declined"] = {"service": service}
        while len(begun) < n:
            context = self._context()
            proposals = self._search.suggest(context, min(n - len(begun), MOST_TOGETHER))
            begun += self._store.begin_all(proposals, context.budget_left, note={} if begun else note)
        return begun

    def checkout(self, trial: Trial | int, folder: str | Path) -> None:
        """Write the code that a trial is to run into `folder`, which is empty or does not exist.

        Raises: ConfigError where code is not edited, for a trial that does not exist, and for another folder.
        """
        number = trial.number if isinstance(trial, Trial) else trial
        found = next((t for t in self.trials if t.number == number), None)
        baseline = self._store.context().baseline
        if self._lineage is None or baseline is None:
            raise ConfigError(f"checkout({number}): this study edits no code; give `editable` for that")
        if found is None:
            raise ConfigError(f"checkout({number}): there is no such trial; the study has {len(self.trials)}")
        self._lineage.checkout(found.proposal.code or baseline.id, Path(folder))

    def tell(
        self,
        trial: Trial | int,
        value: float | None = None,
        *,
        outcome: Outcome | None = None,
        failed: str | None = None,
        seconds: float = 0.0,
        params: Mapping[str, object] | None = None,
    ) -> Trial:
        """End a trial with a finite `value`, or as `failed` with the reason, or with a whole `outcome`.

        `params` is the configuration that was really run, where that was another than the trial's: a table of known runs
        answers with its nearest row, a job rounds its arguments. What is learned counts for it, and neither of the two is
        proposed again. Inactive parameters may be left in.

        Raises: ConfigError where the trial is not open, the value is not a finite number, or `params` do not fit the space.
        """
        number = trial.number if isinstance(trial, Trial) else trial
        if number not in {t.number for t in self.pending}:
            raise ConfigError(
                f"tell({number!r}): there is no open trial of this number; open: {[t.number for t in self.pending]}"
            )
        ended = _outcome(number, value, outcome, failed, seconds)
        return self._store.finish(number, ended, None if params is None else self._evaluated(number, params))

    def _evaluated(self, number: int, params: Mapping[str, object]) -> Params | None:
        """What was run, where it was not what was asked for."""
        if not isinstance(params, Mapping):
            raise ConfigError(
                f"tell({number}): params={params!r} is not a configuration; give a dict of parameter values"
            )
        proposal = next(t for t in self.pending if t.number == number).proposal
        space = self._store.context().space_of(proposal.code)
        fitted = space.coerce(space.drop_inactive(params))
        if not isinstance(fitted, dict):
            raise ConfigError(
                f"tell({number}): params={dict(params)!r} is no configuration of the space: {fitted}; "
                "leave params out where the trial ran as it was asked for"
            )
        return None if space.key(fitted) == space.key(proposal.params) else fitted

    def seed(self, trial: Trial | int) -> int:
        """The seed to run a trial with; see `llmhpo.job.seed`. An edit's first trial has that of the one it is compared with."""
        number = trial.number if isinstance(trial, Trial) else trial
        twin = next((t.proposal.twin for t in self.trials if t.number == number), None)
        return self._store.task.job_seed(self._store.seed, number if twin is None else twin)

    # --- confirming ---------------------------------------------------------------------------------------------------

    def confirm_plan(self, k: int = 5) -> list[Rerun]:
        """The runs that have not ended of those that confirm `best`: it and the default, on `k` new seeds each.

        They are committed as begun, and no trials of the study: run each on its own `seed`, and give what comes of it to
        `confirm_tell`. `confirmation` says what they show.

        Raises: ConfigError where `k` is no whole number from 1 on, and where no trial has ended well.
        """
        plan = self._confirming(k)
        reruns: list[Rerun] = []
        while (rerun := plan.next([r.number for r in reruns])) is not None:
            reruns.append(rerun)
        return reruns

    def confirm_tell(
        self, rerun: Rerun, value: float | None = None, *, outcome: Outcome | None = None, failed: str | None = None
    ) -> None:
        """End a run of `confirm_plan`, as `tell` ends a trial.

        Raises: ConfigError where the run is not open, or the value is not a finite number.
        """
        store = self._confirm_store
        open_ = [] if store is None else [t.number for t in store.trials if t.outcome is None]
        if store is None or rerun.number not in open_:
            raise ConfigError(f"confirm_tell({rerun.number}): there is no open run of this number; open: {open_}")
        store.finish(rerun.number, _outcome(rerun.number, value, outcome, failed, 0.0))

    def confirmation(self, k: int = 5) -> Confirmation:
        """What the runs of `confirm_plan` show so far of the present `best`."""
        return self._confirming(k).confirmation()

    def _confirming(self, k: int) -> Plan:
        context = self._store.context()
        if self._confirm_store is None:
            plan = open_plan(self.storage, self.study_name, context, k)
            self._confirm_store = plan.store
            return plan
        return Plan(self._confirm_store, context, k)

    def _take_in(self) -> None:
        """What the person has asked for in a chat: it holds from the next trial on."""
        if self._wishes is not None and self._wishes.changed:
            take_in(self._store, self._wishes)
            self.n_trials = self._store.steering.budget.n_trials or self.n_trials

    def _context(self) -> Context:
        done = len(self._store.trials) - self._store.imported
        return self._store.context(None if self.n_trials is None else max(0, self.n_trials - done))

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, by number."""
        return self._store.trials

    @property
    def pending(self) -> tuple[Trial, ...]:
        """Trials that were asked for and not told."""
        return tuple(t for t in self._store.trials if t.outcome is None)

    @property
    def stop(self) -> Stop | None:
        """Why no more trials need be asked for, by `n_trials` and the rules that were given; None while there is no reason.

        `ask` goes on all the same. The wall-clock time is that for which the study was open.
        """
        if (stop := self._watch.stop or check(self._rules, self._store.context())) is not None:
            return stop
        done = self.n_trials is not None and len(self._store.trials) - self._store.imported >= self.n_trials
        return Stop("budget", f"n_trials={self.n_trials} have been begun; a larger n_trials goes on") if done else None

    @property
    def best(self) -> Trial | None:
        """The incumbent: as `Result.best`."""
        return incumbent(self._store.context())

    @property
    def result(self) -> Result:
        """The result as far as the study has come."""
        return result_of(self._store.context(), self.study_name, self.storage)

    @property
    def n_left(self) -> int | None:
        """How many of `n_trials` have not begun; None where that was not given."""
        return self._context().budget_left

    def close(self) -> None:
        """Release the storage. May be called again."""
        if not self._is_closed:
            self._watch.save()
        self._is_closed = True
        self._store.close()
        if self._confirm_store is not None:
            self._confirm_store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _folder(storage: str | None, study_name: str) -> Path:
    """Where a study keeps what is not in its storage: beside its SQLite file, else in a folder of its own."""
    path = sqlite_path(storage)
    if path is not None and path.name == "study.db":
        return path.parent
    return (Path("runs") if path is None else path.parent / "runs").resolve() / file_name(study_name)


def _outcome(number: int, value: float | None, outcome: Outcome | None, failed: str | None, seconds: float) -> Outcome:
    """The one outcome that was told."""
    if sum(given is not None for given in (value, outcome, failed)) != 1:
        raise ConfigError(f"tell({number}): give exactly one of value, outcome and failed")
    if not isinstance(outcome, Outcome | None):
        raise ConfigError(
            f"tell({number}): outcome={outcome!r} is not an Outcome; for a failed trial give failed='why'"
        )
    if outcome is not None:
        return outcome
    if failed is not None:
        return Outcome("failed", seconds=seconds, message=failed)
    return Outcome("ok", _finite(number, value), seconds)


def _finite(number: int, value: object) -> float:
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise ConfigError(f"tell({number}, {value!r}): the value is not a number; use failed='...' for a failed trial")
    out = float(value)
    if not math.isfinite(out):
        raise ConfigError(f"tell({number}, {value!r}): the value is not finite; use failed='...' for a failed trial")
    return out
