"""Running what a `RunConfig` describes: a study to its end, and the confirmation of its best."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shlex
from collections.abc import Callable, Generator
from dataclasses import replace

from llmhpo.agents.base import Search
from llmhpo.agents.portfolio import make_portfolio
from llmhpo.comparison import Confirmation
from llmhpo.config import RunConfig, steered_config
from llmhpo.confirmation import FOLDERS, Held, open_plan, run_plan
from llmhpo.errors import ConfigError
from llmhpo.events import Event, Stopped, StopReason
from llmhpo.execution import make_executor
from llmhpo.executors.base import Objective
from llmhpo.llm.redact import Redactor
from llmhpo.loop import Loop
from llmhpo.result import Result, result_of
from llmhpo.scoring.base import Scoring
from llmhpo.steering import Steering
from llmhpo.store import Store
from llmhpo.store.journal import journal_path
from llmhpo.store.others import check_warm_start, take_over
from llmhpo.store.purse import Purse
from llmhpo.store.wishes import Wishes, take_in
from llmhpo.view import steered

_log = logging.getLogger("llmhpo")


def run(
    config: RunConfig,
    on_event: Callable[[Event], None],
    objective: Objective | None = None,
    *,
    isolated: bool | None = None,
    confirm: int | None = None,
) -> Result:
    """Run the study that `config` describes to its end, and `confirm` its best, telling `on_event` what happens.

    Raises: as `optimize`.
    """
    wishes = Wishes(config.directory)
    while (result := _session(config, on_event, objective, wishes, isolated=isolated)).stopped == "steered":
        pass
    if confirm is None and config.editing is not None and result.best is not None and result.best.proposal.code:
        confirm = config.editing.confirm or None
    if confirm is None or result.best is None or result.stopped in ("hopeless", "paused"):
        return result
    return replace(
        result, confirmation=run_confirmation(config, result, confirm, on_event, objective, isolated=isolated)
    )


def _session(
    config: RunConfig,
    on_event: Callable[[Event], None],
    objective: Objective | None,
    wishes: Wishes,
    *,
    isolated: bool | None,
) -> Result:
    """One session: to the end of the study, or to a change that takes a new executor."""
    check_warm_start(config.warm_start, edits_code=config.editing is not None)
    executor = None if config.editing is not None else make_executor(config, objective, isolated)
    portfolio = make_portfolio(
        config.llm,
        base_url=config.base_url,
        price=config.price,
        caps=config.caps,
        deadline_s=config.deadline_s,
        advice=config.advice,
        purse=Purse(config.directory),
    )
    log = journal_path(config.storage, config.study_name, config.directory)
    store = Store(config.storage, config.study_name, config.space, config.task, seed=config.seed, log=log)
    with contextlib.closing(store):
        _catch_up(store, config, wishes)
        if store.space.names != config.space.names:
            config, executor = steered_config(config, store.steering), None
        search: Search = portfolio
        if config.editing is not None:
            workshop = config.editing.begin(store, config.directory)
            search = config.editing.search(portfolio, workshop)
            executor = make_executor(config, objective, isolated, workshop=workshop, known=store.context)
        executor = executor or make_executor(config, objective, isolated)
        search.log_requests(store.log)
        loop = Loop(
            store,
            search,
            executor,
            n_trials=config.n_trials,
            directory=config.directory / "trials",
            retries=config.retries,
            command=_command_text(config),
            rules=config.rules,
            wishes=wishes,
        )
        stopped = _tell_all(loop.run(), on_event)
        return replace(result_of(store.context(), config.study_name, config.storage), stopped=stopped)


def _catch_up(store: Store, config: RunConfig, wishes: Wishes) -> None:
    """Take in what happened elsewhere since, in other studies and in chats, and say what the study had otherwise before."""
    take_over(store, config.warm_start)
    _note_another_command(store, config)
    if config.scoring is not None:
        _note_another_scorer(store, config.scoring)
    wishes.listen(store.epoch)
    take_in(store, wishes)
    _note_changed_space(config, store.steering)


def _tell_all(events: Generator[Event], on_event: Callable[[Event], None]) -> StopReason | None:
    """Why the run ended, where it did not end by an error."""
    stopped = None
    with contextlib.closing(events):  # which ends the jobs where `on_event` raises
        for event in events:
            on_event(event)
            stopped = event.reason if isinstance(event, Stopped) else stopped
    return stopped


def run_confirmation(
    config: RunConfig,
    result: Result,
    k: int,
    on_event: Callable[[Event], None],
    objective: Objective | None = None,
    *,
    isolated: bool | None = None,
    held: Held = "promotion",
) -> Confirmation:
    """Confirm the best of `result` with the executor that `config` describes, telling `on_event` of every run.

    Raises: as `confirm`; ConfigError for a split `held` "test" that is not declared.
    """
    _note_changed_space(config, result.steering)
    config = steered_config(config, result.steering)
    splits = {} if config.scoring is None else config.scoring.splits
    if held == "test" and held not in splits:
        raise ConfigError(
            "there is no split 'test' to score on; add [splits.test] with inputs and labels, and a scorer"
        )
    split = held if held in splits else "search"
    folder = config.directory / FOLDERS[held]
    plan = open_plan(config.storage, config.study_name, result.context, k, folder, held)
    if held == "test" and plan.earlier:
        _log.warning(
            "the test split of study %r was opened before, for another winner: what is chosen after a look at it is not tested by it",
            config.study_name,
        )
    with contextlib.closing(plan.store):
        workshop = None
        if config.editing is not None and result.baseline is not None:
            workshop = config.editing.workshop(config.directory, result.baseline.id)
        executor = make_executor(config, objective, isolated, workshop=workshop)
        command = _command_text(config)
        _tell_all(run_plan(plan, executor, folder, retries=config.retries, command=command, split=split), on_event)
        return plan.confirmation(split)


def _command_text(config: RunConfig) -> str:
    text = config.command if isinstance(config.command, str) else shlex.join(config.command or ())
    return Redactor.from_environment()(text)


def _note_another_command(store: Store, config: RunConfig) -> None:
    now = _command_text(config)
    was = store.remember("command", now)
    if was != now:
        _log.warning(
            "study %r began with the command %r and goes on with %r; where the two give other values, give another study_name",
            config.study_name, was, now,
        )  # fmt: skip


def _note_changed_space(config: RunConfig, steering: Steering) -> None:
    now = steered(config.space, steering)
    if changed := [name for name in steering.params if name not in config.space or now[name] != config.space[name]]:
        _log.warning(
            "study %r has %s as last changed in a chat; study.toml need not say so",
            config.study_name,
            ", ".join(changed),
        )


def _note_another_scorer(store: Store, scoring: Scoring) -> None:
    now = hashlib.sha256(scoring.script.read_bytes()).hexdigest()
    if store.remember("scorer", now) != now:
        _log.warning(
            "study %r began with another scorer than %r is now; where the two give other values, give another study_name",
            store.study_name, scoring.script.name,
        )  # fmt: skip
