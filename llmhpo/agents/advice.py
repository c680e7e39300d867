"""How a study's model is used: what it is asked for, and what is done with its answers before any is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

from llmhpo.errors import ConfigError, did_you_mean

Proposing = Literal["batch", "llambo"]
Ranking = Literal["none", "llambo:disc", "llambo:gen"]
Detail = Literal["none", "partial", "full"]
_CHOICES = {"proposer": get_args(Proposing), "surrogate": get_args(Ranking), "context": get_args(Detail)}
_MOST_SAMPLES = 100


@dataclass(frozen=True, slots=True)
class Advice:
    """The settings of table `[advice]` in study.toml.

    `proposer`: "batch" asks for all configurations in one request; "llambo" samples them one by one, each for a target value.
    `surrogate`: "llambo:disc" or "llambo:gen" has the model itself rank what it proposed; "none" leaves that to the screen. `context`
    is how much "llambo" tells before the first trial: only names and ranges, also the goal and the meaning of the parameters, or
    all that is known. `candidates` are sampled and ranked for a batch, `samples` answers averaged where the model tells no
    log-probabilities. `alpha`: the target is the best value minus `alpha` times the range of the values, so that a negative one
    asks for nearly the best. `critic`: whether the model looks at its own batch again where that broke rules.

    Raises: ConfigError.
    """

    proposer: Proposing = "batch"
    surrogate: Ranking = "none"
    context: Detail = "full"
    candidates: int = 12
    samples: int = 5
    alpha: float = -0.1
    critic: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                known = ", ".join(f'"{c}"' for c in choices)
                raise ConfigError(f"advice.{name} = {value!r} is not known; use one of {known}")
        for name in ("candidates", "samples"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_SAMPLES:
                raise ConfigError(f"advice.{name} = {value!r} is not a whole number from 1 to {_MOST_SAMPLES}")
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float) or not -1.0 <= self.alpha <= 1.0:
            raise ConfigError(f"advice.alpha = {self.alpha!r} is not a number from -1 to 1")
        if not isinstance(self.critic, bool):
            raise ConfigError(f"advice.critic = {self.critic!r} is neither true nor false")

    @classmethod
    def of(cls, raw: Self | Mapping[str, Any] | None) -> Self:
        """From a table; all that it leaves out stays as it is by default. Raises: ConfigError."""
        if isinstance(raw, cls):
            return raw
        if raw is None:
            return cls()
        known = [f.name for f in fields(cls)]
        if not isinstance(raw, Mapping):
            raise ConfigError(f"advice={raw!r} is not a table; its keys are: {', '.join(known)}")
        for name in raw:
            if name not in known:
                hint = did_you_mean(name, known, f"the keys are: {', '.join(known)}")
                raise ConfigError(f"advice has no key {name!r}; {hint}")
        return cls(**raw)
