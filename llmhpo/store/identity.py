"""Whether a study is the one that is meant: made by llmhpo, of this space and metric, its trials all our own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from optuna.trial import FrozenTrial

from llmhpo.errors import StudyMismatchError
from llmhpo.space import SearchSpace
from llmhpo.store.attributes import PREFIX, trial_from_optuna
from llmhpo.store.held import HeldStudy
from llmhpo.trial import Task, Trial


def make_or_match(
    study: HeldStudy, space: SearchSpace, task: Task, seed: int | None, redact: Callable[[str], str]
) -> Task:
    """Make an empty study ours, or check that it is; the task, which is noisy where it ever was.

    `seed` is drawn where None is given; an existing study keeps its own.

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
        return task
    was = attrs[PREFIX + "task"]
    _check_same(study.name, attrs, space, task)
    # Its trials were run with seeds of their own: to take their values for exact would be wrong.
    if task.noisy and not was.get("noisy", False):
        study.write(lambda: study.set("task", {**was, "noisy": True}))
    return replace(task, noisy=task.noisy or was.get("noisy", False))


def _check_adoptable(study: HeldStudy) -> None:
    """An empty or a foreign Optuna study may become ours only while it has no trials of another space."""
    if study.frozen():
        raise StudyMismatchError(
            f"study {study.name!r} holds trials that llmhpo did not make; give another study_name, "
            "or use llmhpo.LLMSampler on that study"
        )


def _check_same(name: str, attrs: Mapping[str, Any], space: SearchSpace, task: Task) -> None:
    was = SearchSpace.from_dict(attrs[PREFIX + "space"])
    if was.revision != space.revision:
        raise StudyMismatchError(
            f"study {name!r} was made with another search space (revision {was.revision}, now "
            f"{space.revision}: {_difference(was, space)}); give another study_name or go back to that space"
        )
    metric = attrs[PREFIX + "task"]["metric"]
    if metric != task.metric:
        raise StudyMismatchError(
            f"study {name!r} was made for the metric {metric!r}, now {task.metric!r}; "
            "give another study_name or the old metric"
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
