"""Overrides of a multirun as a search space, in Hydra's own grammar, and a configuration back as overrides.

`choice(a,b)` and `a,b` are a category (in their order with `tag(ordered, ...)`), `range(1,5)` the values that Hydra gives it,
`interval(0,1)` a float, `int(interval(1,8))` an integer, `tag(log, ...)` a logarithmic scale. What the application is configured with
is the default. Everything else is handed on as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString, RangeSweep, Sweep, Transformer
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from llmhpo.errors import ConfigError
from llmhpo.param import UNSET, Param, ParamValue
from llmhpo.space import Params, SearchSpace

_TAGS = {"log", "ordered"}


@dataclass(frozen=True, slots=True)
class Overrides:
    """A multirun: the space, the key that each parameter overrides, how choices are written, and what all jobs share."""

    space: SearchSpace
    keys: Mapping[str, str]
    spelled: Mapping[str, Mapping[ParamValue, str]]
    fixed: tuple[str, ...]

    def of(self, params: Params) -> list[str]:
        """The overrides of one job."""
        values = {name: self.spelled.get(name, {}).get(value, _text(value)) for name, value in params.items()}
        return [*self.fixed, *(f"{self.keys[name]}={text}" for name, text in values.items())]


def read_overrides(arguments: Sequence[str], config: DictConfig, config_loader: object = None) -> Overrides:
    """What the arguments of a multirun say; of two for one key the later one counts.

    Raises: ConfigError, SpaceError; hydra.errors.OverrideParseException for what is not in Hydra's grammar.
    """
    parsed = OverridesParser.create(config_loader=config_loader).parse_overrides(list(arguments))
    last = {override.get_key_element(): override for override in parsed}
    params, keys, fixed = [], {}, []
    spelled: dict[str, dict[ParamValue, str]] = {}
    for key, override in last.items():
        if not override.is_sweep_override():
            fixed.append(override.input_line)
            continue
        name = key.lstrip("+")
        distribution, texts = _distribution(override)
        spelled |= {name: texts} if texts else {}
        keys[name] = key
        params.append(_param(name, distribution, override, config, texts))
    if not params:
        raise ConfigError(
            "nothing is swept over; add overrides such as 'lr=tag(log,interval(1e-5,1))' or 'model=choice(small,large)'"
        )
    return Overrides(SearchSpace(params), keys, spelled, tuple(fixed))


def _param(
    name: str, distribution: BaseDistribution, override: Override, config: DictConfig, texts: Mapping[ParamValue, str]
) -> Param:
    tags = cast("Sweep", override.value()).tags
    if unknown := sorted(tags - _TAGS):
        raise ConfigError(
            f"{override.input_line!r}: tag {unknown[0]!r} is unknown; known are: {', '.join(sorted(_TAGS))}"
        )
    ordered = "ordered" in tags and isinstance(distribution, CategoricalDistribution)
    param = Param(name, distribution, ordered=ordered)
    now = OmegaConf.select(config, name.partition("@")[0], throw_on_missing=False)
    if now is None or OmegaConf.is_config(now):
        now = OmegaConf.select(config, "hydra.runtime.choices").get(name) or now
    if param.choices:
        now = next((value for value, text in texts.items() if now in (value, text)), now)
    fits = not OmegaConf.is_config(now) and param.check(now) is None
    return Param(name, distribution, ordered=ordered, default=param.cast(now) if fits else UNSET)


def _distribution(override: Override) -> tuple[BaseDistribution, dict[ParamValue, str]]:
    """What a sweep draws from, and how its choices are written where it is one of choices."""
    value = override.value()
    log = "log" in getattr(value, "tags", ())
    try:
        if isinstance(value, IntervalSweep):
            ends = value.start, value.end
            if all(isinstance(end, int) for end in ends):
                return IntDistribution(*cast("tuple[int, int]", ends), log=log), {}
            low, high = cast("tuple[float, float]", ends)
            return FloatDistribution(float(low), float(high), log=log), {}
        if isinstance(value, RangeSweep) and not log:
            return _grid(list(cast("Any", override.sweep_iterator(Transformer.identity)))), {}
        if isinstance(value, RangeSweep):
            raise ConfigError("tag(log, range(...)) has no steps of equal size; use tag(log, interval(...))")
        texts = dict(
            zip(
                map(_value, override.sweep_iterator(Transformer.identity)),
                override.sweep_string_iterator(),
                strict=True,
            )
        )
        return CategoricalDistribution(list(texts)), texts
    except ValueError as error:  # ConfigError is one
        raise ConfigError(f"{override.input_line!r}: {error}") from None


def _grid(values: Sequence[float]) -> BaseDistribution:
    """The values of a range, which may run downwards."""
    if not values:
        raise ConfigError("the range is empty; its end is left out, as in Python")
    low, high, step = min(values), max(values), abs(values[1] - values[0]) if len(values) > 1 else 1
    if all(isinstance(v, int) for v in values):
        return IntDistribution(int(low), int(high), step=int(step))
    return FloatDistribution(float(low), float(high), step=float(step))


def _value(element: Any) -> ParamValue:
    if isinstance(element, QuotedString):
        return str(element.text)
    if element is None or isinstance(element, str | int | float | bool):
        return element
    return str(Transformer.str(element))


def _text(value: ParamValue) -> str:
    return repr(value) if isinstance(value, float) else str(value)
