"""What the model's answers cost: counts that add up, and caps that are checked before each request."""

from __future__ import annotations

from dataclasses import dataclass

from llmhpo.errors import BudgetError, ConfigError


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests, tokens and money. `usd` is None where the price of the model is not known."""

    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0  # the part of input_tokens that the service served from its cache
    output_tokens: int = 0
    usd: float | None = 0.0
    reasoning_tokens: int = 0  # the part of output_tokens that the model thought unseen

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            None if self.usd is None or other.usd is None else self.usd + other.usd,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(
            self.calls - earlier.calls,
            self.input_tokens - earlier.input_tokens,
            self.cached_tokens - earlier.cached_tokens,
            self.output_tokens - earlier.output_tokens,
            None if self.usd is None or earlier.usd is None else self.usd - earlier.usd,
            self.reasoning_tokens - earlier.reasoning_tokens,
        )

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input: float
    output: float
    cached: float | None = None  # None: cached input costs as much as other input

    def usd(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """Money for one request, in US dollars."""
        cached = self.input if self.cached is None else self.cached
        return (
            (input_tokens - cached_tokens) * self.input + cached_tokens * cached + output_tokens * self.output
        ) / 1e6


@dataclass(frozen=True, slots=True)
class Caps:
    """Hard limits on what a study may spend on its model; None means no limit."""

    max_tokens: int | None = None
    max_usd: float | None = None
    max_requests: int | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("max_tokens", self.max_tokens),
            ("max_usd", self.max_usd),
            ("max_requests", self.max_requests),
        ):
            if value is not None and not (isinstance(value, int | float) and value >= 0):
                raise ConfigError.of_option(name, value, "is not a limit; give a number >= 0, or leave it out for none")

    def check(self, spent: Usage, coming: Usage) -> None:
        """Refuse a request that could pass a cap.

        `spent` holds all requests that ended, and what others under way may cost (see `store.purse`); `coming` is the worst case
        of the next one: its prompt plus the longest reply that is allowed.

        Raises: BudgetError.
        """
        total = spent + coming
        if self.max_requests is not None and total.calls > self.max_requests:
            raise BudgetError(f"max_requests={self.max_requests} is spent; raise it to let the model go on")
        if self.max_tokens is not None and total.tokens > self.max_tokens:
            raise BudgetError(
                f"the next request may bring the study to {total.tokens} tokens, over max_tokens={self.max_tokens}; "
                "raise the cap to let the model go on"
            )
        if self.max_usd is None:
            return
        if total.usd is None:
            raise BudgetError(
                f"max_usd={self.max_usd} cannot be kept: the price of this model is not known; give `price`"
            )
        if total.usd > self.max_usd:
            raise BudgetError(
                f"the next request may bring the bill to ${total.usd:.4f}, over max_usd={self.max_usd}; "
                "raise the cap to let the model go on"
            )
