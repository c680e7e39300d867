"""Whether a study is the one that is meant: made by llmhpo, of this space and metric, its trials all our own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial

from llmhpo.errors import StudyMismatchError
from llmhpo.param import Param
from llmhpo.space import SearchSpace
from llmhpo.store.attributes import PREFIX, read_steering, trial_from_optuna
from llmhpo.store.held import HeldStudy
from llmhpo.trial import Task, Trial
from llmhpo.view import steered


class Match(NamedTuple):
    """The task of a study, which is noisy where it ever was, and the space that it began with."""

    task: Task
    began: SearchSpace


def make_or_match(
    study: HeldStudy,
    space: SearchSpace,
    task: Task,
    seed: int | None,
    redact: Callable[[str], str],
    grown: Collection[str] = (),
) -> Match:
    """Make an empty study ours, or check that it is.

    `seed` is drawn where None is given; an existing study keeps its own. `grown` names parameters that may have joined the space, or
    become wider, since the study was made.

    Raises: StudyMismatchError (another space or metric, or trials that are not ours).
    """
    attrs = study.attrs
    if PREFIX + "space" not in attrs:
        _check_adoptable(study)

        def make() -> None:
            study.set("task", {**asdict(task), "text": redact(task.text)})
            study.set("seed", secrets.randbelow(2**31) if seed is None else seed)
            study.set("space", space.to_dict())  # last: it is what makes a study one of ours

        study.write(make)
        return Match(task, space)
    began = _began(study.name, attrs, space, grown)
    was = attrs[PREFIX + "task"]
    _check_metric(study.name, was["metric"], task.metric)
    # Its trials were run with seeds of their own: to take their values for exact would be wrong.
    task = replace(task, noisy=task.noisy or was.get("noisy", False))
    now = {**was, "noisy": task.noisy, "text": redact(task.text)}
    if now != was:
        study.write(lambda: study.set("task", now))
    return Match(task, began)


def _check_adoptable(study: HeldStudy) -> None:
    """An empty or a foreign Optuna study may become ours only while it has no trials of another space."""
    if study.frozen():
        raise StudyMismatchError(
            f"study {study.name!r} holds trials that llmhpo did not make; give another study_name, "
            "or use llmhpo.LLMSampler on that study"
        )


def _began(name: str, attrs: Mapping[str, Any], space: SearchSpace, grown: Collection[str]) -> SearchSpace:
    """The space that the study began with, where `space` is the same, or what has become of it since. Raises: StudyMismatchError."""
    was, said = SearchSpace.from_dict(attrs[PREFIX + "space"]), read_steering(attrs)
    if was.revision == space.revision:
        return space
    if said and steered(was, said[-1]).revision == space.revision:
        return was  # the person has written into their file what they had said in a chat
    changed = {n for n in (*was.names, *space.names) if n not in was or n not in space or _differ(was[n], space[n])}
    if changed <= set(grown) & set(space.names):
        return SearchSpace(was.params, late=[n for n in space.late if n in was])
    raise StudyMismatchError(
        f"study {name!r} was made with another search space (revision {was.revision}, now "
        f"{space.revision}: {_difference(was, space)}); give another study_name or go back to that space"
    )


def _differ(one: Param, other: Param) -> bool:
    return (one.distribution, one.ordered, one.when) != (other.distribution, other.ordered, other.when)


def _check_metric(name: str, was: str, now: str) -> None:
    if was != now:
        raise StudyMismatchError(
            f"study {name!r} was made for the metric {was!r}, now {now!r}; give another study_name or the old metric"
        )


def _difference(was: SearchSpace, now: SearchSpace) -> str:
    gone = [n for n in was.names if n not in now]
    new = [n for n in now.names if n not in was]
    changed = [n for n in was.names if n in now and was[n] != now[n]]
    parts = [("removed", gone), ("added", new), ("changed", changed)]
    return "; ".join(f"{what} {', '.join(names)}" for what, names in parts if names) or "another order"


def our_trial(frozen: FrozenTrial, spaces: Mapping[str, SearchSpace], study_name: str) -> Trial:
    """A trial of a study whose revisions of the code ("": as the user wrote it) have these `spaces`.

    Raises: StudyMismatchError where it fits none: somebody else wrote it.
    """
    trial = trial_from_optuna(frozen)
    which = f"trial {frozen.number} of study {study_name!r}"
    space = spaces.get(trial.proposal.code)
    if space is None:
        raise StudyMismatchError(
            f"{which} ran the code {trial.proposal.code!r}, which is no revision "
            "of the study; somebody else wrote it: give another study_name"
        )
    if not _fits(space, frozen.params):
        raise StudyMismatchError(
            f"{which} does not fit its space ({space.coerce(frozen.params)}); "
            "somebody else wrote it: give another study_name"
        )
    if trial.evaluated is not None and not _fits(space, trial.evaluated):
        raise StudyMismatchError(
            f"{which} was told with a configuration that does not fit its "
            f"space ({space.coerce(trial.evaluated)}); somebody else wrote it: give another study_name"
        )
    return trial


def _fits(space: SearchSpace, params: Mapping[str, Any]) -> bool:
    """Whether these are the active parameters of a configuration, rounding noise on a grid aside."""
    whole = space.complete(dict(params))
    fitted = space.coerce(whole)
    return isinstance(fitted, dict) and fitted.keys() == whole.keys()
