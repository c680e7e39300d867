"""A study read without running it."""

from __future__ import annotations

import contextlib

from optuna.trial import TrialState

from llmhpo.errors import StoreError
from llmhpo.space import SearchSpace
from llmhpo.steering import Steering
from llmhpo.store.attributes import (
    PREFIX,
    read_baseline,
    read_batches,
    read_steering,
    read_transfers,
    trial_from_optuna,
)
from llmhpo.store.storage import close_storage, open_storage, shown, sqlite_path, storage_errors
from llmhpo.trial import Context, Task
from llmhpo.view import reworded, steered


def load_study(storage: str, study_name: str) -> Context:
    """Read a study without running it. Needs no space and takes no lock.

    Raises: StoreError where there is no such study, or it is not one of llmhpo's.
    """
    path = sqlite_path(storage)
    if path is not None and not path.exists():
        raise StoreError(f"there is no study yet: {path} does not exist; `llmhpo run` makes it")
    store = open_storage(storage)
    with contextlib.ExitStack() as stack, storage_errors(storage):
        stack.callback(close_storage, store)
        try:
            study_id = store.get_study_id_from_name(study_name)
        except KeyError:
            names = ", ".join(repr(s.study_name) for s in store.get_all_studies()) or "none"
            raise StoreError(f"{shown(storage)} holds no study named {study_name!r}; it holds: {names}") from None
        attrs = store.get_study_user_attrs(study_id)
        if not {PREFIX + "space", PREFIX + "task", PREFIX + "seed"} <= set(attrs):
            raise StoreError(
                f"study {study_name!r} in {shown(storage)} was not made by llmhpo; use optuna's own tools for it"
            )
        trials = tuple(
            trial_from_optuna(t)
            for t in store.get_all_trials(study_id, deepcopy=False)
            if t.state != TrialState.WAITING
        )
    task = Task(**attrs[PREFIX + "task"])
    began, steerings = SearchSpace.from_dict(attrs[PREFIX + "space"]), read_steering(attrs)
    steering = steerings[-1] if steerings else Steering()
    batches, seed = tuple(read_batches(attrs)), int(attrs[PREFIX + "seed"])
    transfers = tuple(read_transfers(attrs))
    return Context(
        reworded(task, steering),
        steered(began, steering),
        trials,
        None,
        seed,
        batches,
        read_baseline(attrs),
        transfers,
        steering=steering,
    )
