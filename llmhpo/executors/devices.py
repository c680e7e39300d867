"""Which GPUs, or which part of one, a worker's jobs have to themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmhpo.errors import ConfigError

_XLA_SHARE = 0.75  # what JAX takes of a GPU unless told otherwise


@dataclass(frozen=True, slots=True)
class Devices:
    """One entry a worker for CUDA_VISIBLE_DEVICES, and the share of each GPU in it that is the worker's."""

    slots: tuple[str, ...]
    share: float = 1.0

    def variables(self, slot: int, env: Mapping[str, str]) -> dict[str, str]:
        """What a job's environment gets besides `env`.

        A share is a promise among jobs: nothing enforces it. It is told in LLMHPO_GPU_SHARE, and JAX and TensorFlow, which
        would take nearly all memory at once, are told by their own variables unless `env` has these.
        """
        told = {"CUDA_VISIBLE_DEVICES": self.slots[slot]}
        if self.share < 1:
            told["LLMHPO_GPU_SHARE"] = repr(self.share)
            told["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{_XLA_SHARE * self.share:.3f}"
            told["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        own = ("CUDA_VISIBLE_DEVICES", "LLMHPO_GPU_SHARE")
        return {name: value for name, value in told.items() if name in own or name not in env}


def share_devices(gpus: Sequence[str] | None, gpus_per_trial: float | None, workers: int) -> Devices | None:
    """Divide `gpus` among `workers`; None where there are none.

    Without `gpus_per_trial`, each entry is one worker's. With it, an entry is one GPU: 0.5 puts two workers on each (spread
    over all GPUs first), 2 gives each worker two.

    Raises: ConfigError where they do not suffice.
    """
    if gpus is None:
        if gpus_per_trial is not None:
            raise ConfigError(f'gpus_per_trial={gpus_per_trial!r} needs a list of GPUs, such as gpus = ["0", "1"]')
        return None
    if isinstance(gpus, str) or not all(isinstance(gpu, str) and gpu for gpu in gpus):
        raise ConfigError(f'gpus={gpus!r} is not a list of names; write one entry a worker, such as ["0", "1"]')
    if gpus_per_trial is None:
        if len(gpus) < workers:
            raise ConfigError(
                f"workers={workers} but gpus={list(gpus)!r} has {len(gpus)} entries: every worker needs one of its own; "
                "lower workers, or let trials share a GPU with gpus_per_trial = 0.5"
            )
        return Devices(tuple(gpus))
    slots = _divide(gpus, gpus_per_trial)
    if len(slots) < workers:
        raise ConfigError(
            f"gpus_per_trial={gpus_per_trial!r} of gpus={list(gpus)!r} is enough for {len(slots)} trials at a time, and "
            f"workers={workers}; lower one of the two"
        )
    return Devices(slots, min(float(gpus_per_trial), 1.0))


def _divide(gpus: Sequence[str], per_trial: float) -> tuple[str, ...]:
    if isinstance(per_trial, bool) or not isinstance(per_trial, int | float) or not 0.01 <= per_trial <= 1024:
        raise ConfigError(f"gpus_per_trial={per_trial!r} is not a number of GPUs from 0.01 on")
    if len(set(gpus)) < len(gpus) or any("," in gpu for gpu in gpus):
        raise ConfigError(
            f"gpus={list(gpus)!r} must name each GPU once, and one an entry, where gpus_per_trial is given"
        )
    if per_trial < 1:
        return tuple(gpus) * int(1 / per_trial + 1e-9)
    if per_trial != int(per_trial):
        raise ConfigError(f"gpus_per_trial={per_trial!r}: a trial has a part of one GPU or a whole number of them")
    size = int(per_trial)
    return tuple(",".join(gpus[i : i + size]) for i in range(0, len(gpus) - size + 1, size))
