"""Every error that llmhpo raises on purpose.

    LLMHPOError
    ├── SpaceError              a search space that contradicts itself
    ├── ConfigError             a study file, an argument or a task that cannot be run
    │   └── MissingExtraError   a part that needs an optional package
    ├── StoreError              a storage that cannot be opened, read or written
    │   ├── StudyMismatchError  the storage holds a study of another space, metric or direction
    │   └── StudyLockedError    another controller is running this study
    ├── ExecutorError           a job that cannot be launched at all (a job that fails is an Outcome)
    │   └── SandboxError        no sandbox of the kind asked for works here, or it cannot be set up for this job
    └── LLMError                the language model gave nothing usable
        ├── LLMUnavailableError   no server, time-out, rate limit, 5xx: worth another try later
        ├── LLMRequestError       the request itself is refused: key, model name, quota
        │   └── LLMPromptError    the prompt is longer than the model takes
        └── LLMReplyError         an answer came, but truncated, empty, refused or not of the asked form
    BudgetError is an LLMError too: the cap on tokens or money does not allow the request.

A message names the value, the place and the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Self


class LLMHPOError(Exception):
    """Root of every error that llmhpo raises on purpose."""


class SpaceError(LLMHPOError, ValueError):
    """A search space that contradicts itself."""


class ConfigError(LLMHPOError, ValueError):
    """A study file, an argument or a task that cannot be run as it stands. `option` is the one that it is about, where it is one."""

    option = ""

    @classmethod
    def of_option(cls, option: str, value: object, problem: str) -> Self:
        """`option=value` and the problem with it, from which whoever knows where the option was given can tell the place."""
        error = cls(f"{option}={value!r} {problem}")
        error.option = option
        return error


class MissingExtraError(ConfigError, ImportError):
    """A part of llmhpo that needs an optional package which is not installed."""

    def __init__(self, what: str, extra: str, package: str) -> None:
        super().__init__(
            f"{what} needs the package {package!r}, which is not installed; run: pip install 'llmhpo[{extra}]'"
        )


class StoreError(LLMHPOError):
    """A storage that cannot be opened, read or written."""


class StudyMismatchError(StoreError):
    """The storage already holds a study of this name with another space, metric or direction."""


class StudyLockedError(StoreError):
    """Another live controller is running this study."""


class ExecutorError(LLMHPOError):
    """A job that cannot be launched at all. A job that runs and fails is an `Outcome`, not an error."""


class SandboxError(ExecutorError):
    """No sandbox of the kind that was asked for works on this machine, or it cannot be set up for a job."""


class LLMError(LLMHPOError):
    """The language model gave nothing usable. The loop goes on with the classical proposer."""


class LLMUnavailableError(LLMError):
    """No server, a time-out, a rate limit or a server error: another try later may work.

    `retry_after_s` is what the service asked for, where it said so; `was_cut_off` says that a request which may have been under
    way was given up: it may have to be paid for.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, was_cut_off: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s, self.was_cut_off = retry_after_s, was_cut_off


class LLMRequestError(LLMError):
    """The service refuses this request for good: key, model name, quota."""


class LLMPromptError(LLMRequestError):
    """The prompt is longer than the model takes."""


class LLMReplyError(LLMError):
    """An answer came, but truncated, empty, refused or not of the form asked for."""


class BudgetError(LLMError):
    """The cap on tokens, requests or money does not allow the next request."""


def did_you_mean(name: object, known: Collection[str], otherwise: str = "") -> str:
    """A hint for an unknown `name`: the one of the `known` that is spelt nearly so, else what is said `otherwise`."""
    close = difflib.get_close_matches(str(name), known, 1)
    return f"did you mean {close[0]!r}?" if close else otherwise
