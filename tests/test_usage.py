from __future__ import annotations

import math
import re
from typing import Any

import pytest

from llmhpo.errors import BudgetError, ConfigError
from llmhpo.usage import Caps, Price, Usage


def test_usages_add_up() -> None:
    total = Usage(1, 100, 50, 10, 0.5) + Usage(2, 200, 0, 20, 0.25)
    assert total == Usage(3, 300, 50, 30, 0.75)
    assert total.tokens == 330


def test_what_was_spent_since_is_a_difference() -> None:
    before, since = Usage(1, 100, 50, 10, 0.5, 4), Usage(2, 200, 0, 20, 0.25, 8)
    assert (before + since) - before == since


def test_an_unknown_price_stays_unknown() -> None:
    assert (Usage(1, usd=None) + Usage(1, usd=1.0)).usd is None
    assert (Usage(2, usd=1.0) - Usage(1, usd=None)).usd is None


def test_cached_tokens_cost_what_they_cost() -> None:
    price = Price(input=2.0, output=10.0, cached=0.5)
    assert price.usd(1_000_000, 100_000, 500_000) == pytest.approx(1.0 + 0.25 + 1.0)


@pytest.mark.parametrize(
    "caps, spent, coming",
    [
        (Caps(max_requests=2), Usage(calls=2), Usage(calls=1)),
        (Caps(max_tokens=100), Usage(1, 50, 0, 20), Usage(1, 20, 0, 11)),
        (Caps(max_usd=1.0), Usage(1, usd=0.9), Usage(1, usd=0.2)),
        (Caps(max_usd=1.0), Usage(1, usd=None), Usage(1, usd=0.0)),
    ],
)
def test_a_request_that_could_pass_a_cap_is_refused(caps: Caps, spent: Usage, coming: Usage) -> None:
    with pytest.raises(BudgetError):
        caps.check(spent, coming)


def test_a_request_within_the_caps_passes() -> None:
    Caps(max_tokens=100, max_usd=1.0, max_requests=2).check(Usage(1, 50, 0, 20, 0.5), Usage(1, 20, 0, 10, 0.5))


def test_a_negative_cap_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_usd=-1"):
        Caps(max_usd=-1)


@pytest.mark.parametrize("cap", [{"max_tokens": "5"}, {"max_usd": "1"}, {"max_usd": math.nan}, {"max_requests": [1]}])
def test_a_cap_that_is_no_number_is_refused(cap: dict[str, Any]) -> None:
    name, value = next(iter(cap.items()))
    with pytest.raises(ConfigError, match=re.escape(f"{name}={value!r}")):
        Caps(**cap)
