"""Which numbers and choices a parameter may have: those that Optuna's storages, its grids and Python itself can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NoReturn, cast

from llmhpo.errors import SpaceError

GRID_TOLERANCE = 1e-8  # of a step, as in FloatDistribution._contains
_MOST_STEPS = 1e7  # from zero to the farther bound; beyond, a double is not within the tolerance of its grid value
_MOST_FLOAT = 1e300  # twice as wide a range is still finite
_MOST_INT = 2**53  # Optuna's storages keep a parameter as a double, which holds no larger integer exactly


def check_numbers(name: str, integer: bool, numbers: Mapping[str, object]) -> None:
    """Raises: SpaceError where one of `numbers`, by its key, is no finite number that a storage keeps."""
    kind, most = (int, _MOST_INT) if integer else (int | float, _MOST_FLOAT)
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, kind) or not abs(cast("float", value)) <= most:
            noun = "integer" if integer else "number"
            fail(name, f"{key} = {show(value)} is not a finite {noun}; give one from {-most:g} to {most:g}")


def grid_high(name: str, low: float, high: float, step: float) -> float:
    """`high` as the grid has it: 0.3 for 0.30000000000000004. Optuna would shrink a range that ends beside its grid.

    Raises: SpaceError where the grid does not reach `high`, or is too fine for a double.
    """
    if max(abs(low), abs(high)) / step > _MOST_STEPS:
        fail(name, f"step = {step!r} is too fine for a range from {low!r} to {high!r}; leave it out, or make it larger")
    steps = (high - low) / step
    if abs(steps - round(steps)) > GRID_TOLERANCE:
        unreached(name, low, high, step)
    first, width = Decimal(repr(low)), Decimal(repr(step))
    last = float(first + round(steps) * width)
    if (Decimal(repr(last)) - first) % width:
        fail(
            name, f"low = {low!r} and step = {step!r} have too many digits to meet high = {high!r}; round low and high"
        )
    return last


def unreached(name: str, low: float, high: float, step: float) -> NoReturn:
    """Raises: SpaceError, in any case."""
    fail(name, f"high = {high!r} is not reached from low = {low!r} in steps of {step!r}; move high onto the grid")


def check_choices(name: str, choices: Sequence[object]) -> None:
    """Raises: SpaceError where a choice cannot be stored, or stands twice."""
    seen: dict[object, object] = {}
    for choice in choices:
        if not (choice is None or isinstance(choice, bool | int | float | str)):
            fail(name, f"choice {show(choice)} is not a string, number, bool or null; write it as a string")
        if isinstance(choice, int | float) and not abs(choice) <= _MOST_FLOAT:
            fail(name, f"choice {show(choice)} is not finite or too large to store; write it as a string")
        if choice in seen:
            fail(
                name,
                f"choices {show(seen[choice])} and {show(choice)} are equal to Python and Optuna: a value stands "
                "twice; leave one out, or write one of them as a string",
            )
        seen[choice] = choice


def fail(name: str, problem: str) -> NoReturn:
    """Raises: SpaceError that names the parameter, in any case."""
    raise SpaceError(f"parameter {name!r}: {problem}")


def show(value: object) -> str:
    """A value in a message, cut where it is long."""
    if isinstance(value, int) and value.bit_length() > 128:  # repr refuses the longest
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
