"""The process that runs a pickled callable once. Imports nothing heavy, so that a job starts in some 30 ms.

    child.py FILE

FILE holds a line of JSON, the `sys.path` that the callable was made under, and then the pickle.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path


def main(path: str) -> None:
    """Run the callable in `path` on this job's parameters and hand in what it returns."""
    with Path(path).open("rb") as file:
        sys.path[:] = json.loads(file.readline())
        objective = pickle.load(file)
    from llmhpo import job  # only now: llmhpo may lie on the callable's path alone

    try:
        value = objective(job.params())
    except Exception as error:
        if not job.is_pruned(error):
            raise
        job.prune(str(error))
    if value is not None:  # else it called `job.result`, or the controller tells that there is none
        job.result(value)


if __name__ == "__main__":
    main(sys.argv[1])
