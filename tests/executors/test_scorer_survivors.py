"""A process that not even SIGKILL ends (it hangs in the kernel) might go on writing predictions. See HAZARDS 7."""

from concurrent.futures import Future

import numpy as np
import pytest

from llmhpo.executors.limits import Limits
from llmhpo.executors.process import End
from llmhpo.executors.scorer import Scorer
from llmhpo.scoring.base import Scoring


@pytest.mark.parametrize("survivors, status", [(0, "ok"), (1, "invalid")])
def test_what_a_living_process_may_still_write_is_not_scored(bench, survivors, status):
    (bench.folder / "score.py").write_text("def score(predictions, labels):\n    return float(predictions.sum())\n")
    executor = bench.executor("", scorer=Scorer(Scoring.of("score.py", folder=bench.folder)))
    job = bench.job()
    job.directory.mkdir(parents=True, exist_ok=True)
    np.save(job.directory / "predictions.npy", np.ones(3))
    outcome = executor._judge(job, job.directory, Future(), End("exited", 0, 1.0, survivors), 0, Limits())
    assert outcome is not None
    assert (outcome.status, outcome.value) == (status, None if survivors else 3.0), outcome.message
    assert ("could not be killed" in outcome.message) is bool(survivors)
