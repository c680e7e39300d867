"""What a user may not know when a job fails in a sandbox: the error that it printed names no sandbox."""

from __future__ import annotations

import re

_LAST = 2000  # characters of the output
_SEES = "in the sandbox a job sees the code (edited code without what .gitignore lists) and what `data` names"
_WRITES = "writes into the folder LLMHPO_DIR and into folders that `writable` names"
_HINTS = (
    (r"Read-only file system", f"in the sandbox a job {_WRITES}, and nowhere else"),
    (
        r"name resolution|Name or service not known|Network is unreachable|Failed to resolve|Could not resolve host"
        r"|couldn't connect to|Address family not supported",
        "in the sandbox there is no network; download beforehand, and name the files as `data`",
    ),
    (r"Permission denied|Operation not permitted", f"{_SEES}, and {_WRITES}"),
    (r"No such file or directory", f"{_SEES}, and no other files"),
)


def hint(output: str) -> str:
    """What of the sandbox may have made a job fail whose output ends like this; "" for nothing known."""
    last = output[-_LAST:]
    return next((words for pattern, words in _HINTS if re.search(pattern, last)), "")
