"""llmhpo: hyperparameter optimization driven by a language model and kept honest by a classical optimizer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmhpo.api import confirm, optimize
    from llmhpo.comparison import Confirmation
    from llmhpo.draws import boolean, choose, integer, loguniform, uniform
    from llmhpo.errors import LLMHPOError
    from llmhpo.llm import make_llm
    from llmhpo.param import Param, When
    from llmhpo.result import Result
    from llmhpo.sampler import LLMSampler
    from llmhpo.space import SearchSpace
    from llmhpo.study import Study
    from llmhpo.trial import Outcome, Proposal, Task, Trial
    from llmhpo.usage import Price, Usage

__version__ = "0.1.0"

_HOME = {
    "Confirmation": "comparison",
    "LLMHPOError": "errors",
    "LLMSampler": "sampler",
    "Outcome": "trial",
    "Param": "param",
    "Price": "usage",
    "Proposal": "trial",
    "Result": "result",
    "SearchSpace": "space",
    "Study": "study",
    "Task": "trial",
    "Trial": "trial",
    "Usage": "usage",
    "When": "param",
    "boolean": "draws",
    "choose": "draws",
    "confirm": "api",
    "integer": "draws",
    "loguniform": "draws",
    "make_llm": "llm",
    "optimize": "api",
    "uniform": "draws",
}

__all__ = [
    "Confirmation",
    "LLMHPOError",
    "LLMSampler",
    "Outcome",
    "Param",
    "Price",
    "Proposal",
    "Result",
    "SearchSpace",
    "Study",
    "Task",
    "Trial",
    "Usage",
    "When",
    "boolean",
    "choose",
    "confirm",
    "integer",
    "loguniform",
    "make_llm",
    "optimize",
    "uniform",
]


def __getattr__(name: str) -> object:
    """Load an exported name on first use, so that `import llmhpo` costs next to nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'llmhpo' has no attribute {name!r}")
    value = getattr(import_module(f"llmhpo.{_HOME[name]}"), name)
    globals()[name] = value
    return value
