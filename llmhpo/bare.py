"""Start a module of llmhpo in a bare interpreter: no site packages, nothing of llmhpo but the module, some 12 ms.

Unlike a script a module is compiled once; llmhpo's own `__init__`, which imports what users need, is passed over.
"""

from __future__ import annotations

import sys
from pathlib import Path

_START = (
    "import sys; p = type(sys)('llmhpo'); p.__path__ = [sys.argv.pop(1)]; sys.modules['llmhpo'] = p; "
    "from importlib import import_module; import_module(sys.argv.pop(1)).main(sys.argv[1:])"
)
_HOME = str(Path(__file__).parent)


def bare_argv(module: str, *arguments: str) -> list[str]:
    """The command that calls `main(arguments)` of a module such as "llmhpo.executors.supervisor"."""
    return [sys.executable, "-I", "-S", "-c", _START, _HOME, module, *arguments]
