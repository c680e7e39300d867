"""Conservative ranges from name, default and type. The default is always inside; every range says in words why it is so."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from llmhpo.errors import SpaceError
from llmhpo.param import UNSET, Param, ParamValue, param_from_dict
from llmhpo.reading.base import Found
from llmhpo.reading.names import LABELS, Verdict, is_booster, judge

_VALUE_TYPED = ("key", "override", "constant", "keyword", "env")  # where the kind was taken from the value: `gamma: 0`


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A tunable setting with its range. `param` is None where none can be given; `reason` then holds the remedy."""

    found: Found
    verdict: Verdict
    param: Param | None
    reason: str


class Span(NamedTuple):
    """A numeric range, or `ladder` values in order, and why."""

    low: float
    high: float
    log: bool
    reason: str
    ladder: tuple[int, ...] = ()


# --- the rules: default -> range --------------------------------------------------------------------------------------


def _factor(down: float, up: float, cap: float = math.inf) -> Callable[[float], Span]:
    """Around a positive default, by factors; from 0, where there is no logarithm, up to a small value."""

    def rule(d: float) -> Span:
        high = max(d, min(d * up, cap))
        capped = "" if high == d * up else f", at most {high:g}"
        return Span(
            d / down, high, True, f"a factor of {down:g} down and {up:g} up from the default{capped}, on a log scale"
        )

    return rule


def _zero_or(most_at_zero: float, rule: Callable[[float], Span]) -> Callable[[float], Span]:
    def either(d: float) -> Span:
        if d > 0:
            return rule(d)
        return Span(min(d, 0.0), most_at_zero, False, f"from the default {d:g} to {most_at_zero:g}; 0 has no logarithm")

    return either


def _between(low: float, high: float, log: bool = False) -> Callable[[float], Span]:
    def rule(_d: float) -> Span:
        return Span(low, high, log, f"the usual range, {low:g} to {high:g}" + (", on a log scale" if log else ""))

    return rule


def _ladder(steps: int, unit: str) -> Callable[[float], Span]:
    """The default halved and doubled up to `steps` times."""

    def rule(d: float) -> Span:
        whole = max(int(d), 1)
        down = [whole // 2**k for k in range(steps, 0, -1) if whole % 2**k == 0 and whole // 2**k >= 1]
        values = (*down, *(whole * 2**k for k in range(steps + 1)))
        return Span(values[0], values[-1], False, f"the default halved and doubled, {unit}", values)

    return rule


def _whole(low: int, least_high: int, factor: float) -> Callable[[float], Span]:
    def rule(d: float) -> Span:
        high = max(least_high, math.ceil(d * factor))
        return Span(
            low, high, False, f"from {low} to {high}: up to {factor:g} times the default, at least {least_high}"
        )

    return rule


def _gamma(d: float) -> Span:
    """A discount near 1, a kernel's width, or a split gain: the default tells which."""
    if 0.8 <= d < 1:
        return Span(0.8, 0.9999, False, "a default near 1 looks like a discount: the usual range, 0.8 to 0.9999")
    if 0.5 <= d < 0.8:
        return Span(0.1, 1.0, False, "a default below 1 looks like a decay of the learning rate: 0.1 to 1")
    if d > 0:
        return _factor(30, 30)(d)
    return Span(0.0, 5.0, False, "from the default 0 to 5; 0 has no logarithm")


def _other_float(d: float) -> Span:
    if d > 0:
        return _factor(10, 10, 1.0 if d <= 1 else math.inf)(d)
    if d == 0:
        return Span(0.0, 1.0, False, "from the default 0 to 1, for want of anything better: check it")
    return Span(2 * d, 0.0, False, "from twice the negative default to 0: check it")


def _other_int(d: float) -> Span:
    if d <= 0:
        return Span(d, d + 3, False, "three steps up from the default: check it")
    low, high = max(1, int(d) // 4), int(d) * 4
    return Span(low, high, d >= 8, "a quarter of the default to four times it: check it")


_RULES: dict[str, Callable[[float], Span]] = {
    "lr": _zero_or(0.1, _factor(30, 30, 1.0)),
    "boost_lr": _between(0.01, 0.5, log=True),
    "min_lr": _zero_or(1e-4, _factor(30, 10, 1.0)),
    "lr_decay": _between(0.1, 1.0),
    "warmup_ratio": _between(0.0, 0.3),
    "warmup_steps": lambda d: Span(0, max(4 * d, 100), False, "from no warm-up to four times the default, at least 100"),
    "penalty": _zero_or(0.1, _factor(100, 100)),
    "inverse_penalty": _factor(1000, 1000),
    "l1_ratio": _between(0.0, 1.0),
    "dropout": _between(0.0, 0.6),
    "label_smoothing": _between(0.0, 0.3),
    "mix": _between(0.0, 1.0),
    "momentum": _between(0.0, 0.99),
    "beta1": _between(0.5, 0.99),
    "beta2": _between(0.9, 0.9999),
    "epsilon": _zero_or(1e-6, _factor(100, 100, 1.0)),
    "batch": _ladder(2, "twice"),
    "accumulation": _ladder(2, "twice"),
    "width": _ladder(2, "twice"),
    "rank": _ladder(2, "twice"),
    "rollout": _ladder(2, "twice"),
    "lora_alpha": _ladder(2, "twice"),
    "heads": _ladder(1, "once, as it must divide the width"),
    "clip": _zero_or(5.0, _factor(10, 10)),
    "clip_range": _between(0.05, 0.4),
    "depth": _whole(1, 4, 2),
    "max_depth": _whole(2, 12, 2),
    "leaves": _factor(4, 8),
    "estimators": _factor(4, 4),
    "child_weight": _zero_or(10.0, _factor(10, 10)),
    "leaf_samples": _whole(1, 20, 4),
    "split_samples": _whole(2, 20, 4),
    "share": _between(0.4, 1.0),
    "subsample_freq": _whole(0, 7, 1),
    "bins": lambda d: Span(max(2, int(d) // 4), max(int(d), min(2 * int(d), 255)), True, "a quarter of the default up to the usual most, 255"),
    "split_gain": _zero_or(5.0, _factor(100, 100)),
    "discount": _between(0.8, 0.9999),
    "gamma": _gamma,
    "tau": _factor(10, 10, 1.0),
    "entropy": _zero_or(0.1, _factor(30, 30, 1.0)),
    "coefficient": _zero_or(1.0, _factor(10, 10)),
    "positive_weight": _factor(10, 10),
    "neighbors": _whole(1, 30, 4),
    "degree": _whole(1, 5, 1),
    "components": _factor(4, 4),
    "coef0": _zero_or(1.0, _factor(10, 10)),
    "temperature": _factor(10, 10),
    "kernel_size": lambda d: Span(1, 0, False, "odd sizes from 1 to two above the default", tuple(range(1 + (int(d) + 1) % 2, int(d) + 5, 2))),
    "schedule_steps": _factor(4, 4),
    "ngram": lambda d: _other_int(d) if d >= 1 and d == int(d) else Span(0.0, 1.0, False, "a share: 0 to 1"),
    "power": _between(1, 2),
}  # fmt: skip
_SHARES = (
    "lr_decay",
    "warmup_ratio",
    "l1_ratio",
    "dropout",
    "label_smoothing",
    "mix",
    "momentum",
    "beta1",
    "beta2",
    "share",
    "discount",
)
_FLOATS: Final = {
    *_SHARES, "lr", "boost_lr", "min_lr", "penalty", "inverse_penalty", "epsilon", "clip", "clip_range", "child_weight",
    "split_gain", "gamma", "tau", "entropy", "coefficient", "positive_weight", "coef0", "temperature",
}  # fmt: skip
_UNITS = {
    "batch": "samples", "width": "units", "depth": "layers", "max_depth": "levels", "estimators": "trees", "leaves": "leaves",
    "warmup_steps": "steps", "rank": "dimensions", "heads": "heads", "neighbors": "neighbours",
}  # fmt: skip
_TYPICAL = {
    "lr": 1e-3,
    "penalty": 1e-4,
    "dropout": 0.1,
    "batch": 32.0,
    "momentum": 0.9,
}  # for a script that gives no default

# Source: the documentation of scikit-learn 1.9, XGBoost 3.2, LightGBM 4.7 and transformers 5, for the keywords named there.
_CHOICES: dict[str, tuple[tuple[str, ...], ...]] = {
    "kernel": (("rbf", "linear", "poly", "sigmoid"),),
    "gamma": (("scale", "auto"),),
    "criterion": (("gini", "entropy"), ("squared_error", "friedman_mse")),
    "weights": (("uniform", "distance"),),
    "max_features": (("sqrt", "log2"),),
    "activation": (("relu", "tanh", "logistic", "identity"),),
    "booster": (("gbtree", "dart"),),
    "boosting_type": (("gbdt", "dart"),),
    "grow_policy": (("depthwise", "lossguide"),),
    "lr_scheduler_type": (("linear", "cosine", "constant_with_warmup", "constant"),),
}


# --- from what was found to a parameter ---------------------------------------------------------------------------------


def suggest(found: Found) -> Suggestion:
    """A range for a setting that `judge` calls tunable."""
    verdict = judge(found)
    assert verdict.is_tunable, found.name
    table, reason = _table(found, verdict)
    if table is None:
        return Suggestion(found, verdict, None, reason)
    doc = found.doc or LABELS.get(verdict.role, "")
    if doc:
        table["doc"] = "".join(c if c.isprintable() else " " for c in doc)
    if verdict.role in _UNITS and found.kind != "bool":
        table["unit"] = _UNITS[verdict.role]
    if found.when:
        table["when"] = {w.parent: list(w.values) for w in found.when}
    try:
        return Suggestion(found, verdict, param_from_dict(found.name, table), reason)
    except SpaceError as error:
        return Suggestion(found, verdict, None, f"no range fits: {error}")


def _table(found: Found, verdict: Verdict) -> tuple[dict[str, object] | None, str]:
    default = found.default
    if default is None:
        return None, "the default is None, which no range holds: give a default in the script, or a table by hand"
    if found.kind == "bool":
        return _listed((False, True), default, "off or on")
    if found.choices:
        return _listed(found.choices, default, "the choices that the script lists")
    if found.kind == "str" or isinstance(default, str):
        return _documented(found, default)
    if isinstance(default, bool) or not isinstance(default, int | float):
        typical = _TYPICAL.get(verdict.role)
        if typical is None:
            why = "is computed" if found.is_computed else "is not given"
            return None, f"the default {why}, so that no range can be placed around it: give low and high by hand"
        span = _RULES[verdict.role](typical)
        return _numbers(
            found,
            verdict,
            None,
            span._replace(
                reason=f"{span.reason.replace('the default', f'the usual {typical:g}')}; no default is known"
            ),
        )
    if not math.isfinite(default) or abs(default) > 1e12:
        return None, f"the default {default!r} is too large for a range: give low and high by hand"
    if (
        isinstance(default, int)
        and default <= 0
        and verdict.role in _RULES
        and verdict.role not in _FLOATS
        and _code(verdict.role, default)
    ):
        return (
            None,
            f"the default {default} is a code for 'off' or 'no limit': list choices by hand, such as [{default}, 4, 8]",
        )
    if default < 0 and verdict.role == "other" and found.kind == "int":
        return None, f"the default {default} may be a code: give low and high by hand"
    if verdict.role == "penalty" and default == 0 and is_booster(found):
        return _numbers(
            found, verdict, 0.0, Span(0.0, 10.0, False, "from the default 0 to 10, usual for boosted trees")
        )
    rule = _RULES.get(verdict.role) or (_other_int if found.kind == "int" else _other_float)
    return _numbers(found, verdict, float(default), rule(float(default)))


def _code(role: str, default: int) -> bool:
    return default < 0 or role not in ("warmup_steps", "subsample_freq", "degree", "depth")


def _listed(choices: tuple[ParamValue, ...], default: object, reason: str) -> tuple[dict[str, object] | None, str]:
    values = [c for c in choices if c is not None]
    if default is not UNSET and default not in values:
        values.append(default)  # type: ignore[arg-type]
    is_ordered = len(values) > 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if is_ordered:
        values.sort(key=lambda v: float(v or 0))
    table: dict[str, object] = {"type": "ordinal" if is_ordered else "categorical", "choices": values}
    return table | ({} if default is UNSET else {"default": default}), reason


def _documented(found: Found, default: object) -> tuple[dict[str, object] | None, str]:
    """The choices that a library documents for its keyword, where the default is one of them."""
    for choices in _CHOICES.get(found.name, ()) if found.passing in ("keyword", "flag") else ():
        is_library = found.passing == "keyword" or found.name == "lr_scheduler_type"
        if default in choices and is_library:
            return _listed(choices, default, "the common ones of the choices that the library documents")
    if default in (listed := _in_prose(found.doc)):
        return _listed(listed, default, "the choices that its help lists")
    return None, "the script does not list its choices: name them by hand"


def _in_prose(doc: str) -> tuple[str, ...]:
    """The words of "squared, hinge or logistic", of "[adam|sgd]" and of "{relu, tanh}"; () where a text has no such list."""
    match = re.search(r"([\w-]+(?:, [\w-]+)*),? or ([\w-]+)|[\[{(]([\w-]+(?:\s*[,|/]\s*[\w-]+)+)[\]})]", doc)
    if match is None:
        return ()
    words = [*match[1].split(", "), match[2]] if match[1] else re.split(r"\s*[,|/]\s*", match[3])
    return tuple(dict.fromkeys(words))


def _numbers(found: Found, verdict: Verdict, default: float | None, span: Span) -> tuple[dict[str, object] | None, str]:
    """The table of a numeric range: clamped to the script's own bounds, rounded outwards, the default inside."""
    is_float = found.kind == "float" or (
        verdict.role in _FLOATS and (found.kind == "unknown" or found.passing in _VALUE_TYPED)
    )
    reason = span.reason
    if span.ladder and not is_float:
        inside = [v for v in span.ladder if _within(v, found)]
        return _listed(tuple(inside), UNSET if default is None else int(default), reason)
    low, high = span.low, span.high
    if default is not None:
        low, high = min(low, default), max(high, default)
    if found.low is not None and (default is None or found.low <= default):
        low, reason = max(low, found.low), reason + f"; the script's own bound {found.low:g} holds" * (found.low > low)
    if found.high is not None and (default is None or found.high >= default):
        high, reason = (
            min(high, found.high),
            reason + f"; the script's own bound {found.high:g} holds" * (found.high < high),
        )
    if verdict.role in _SHARES and high > 1 and default is not None and default > 1:
        return (
            None,
            f"the default {default:g} is above 1, so that it is no share as its name says: give low and high by hand",
        )
    log = span.log and low > 0
    if is_float:
        table: dict[str, object] = {
            "type": "float",
            "low": _short(low, default, found.low),
            "high": _short(high, default, found.high),
        }
    else:
        least = 1 if log else 0 if low >= 0 else low
        table = {"type": "int", "low": int(max(math.floor(low), least)), "high": math.ceil(high)}
    if default is not None:
        table["default"] = default if is_float else int(default)
    return table | ({"log": True} if log else {}), reason


def _within(value: float, found: Found) -> bool:
    return (found.low is None or value >= found.low) and (found.high is None or value <= found.high)


def _short(bound: float, *exact: float | None) -> float:
    """A bound in four digits, unless it is the default or the script's own bound: those must hold to the last digit."""
    return bound if bound in exact else float(f"{bound:.4g}")
