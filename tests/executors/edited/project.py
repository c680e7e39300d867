"""A project of a user's whose code may be edited, and what its model.py may hold."""

from dataclasses import replace

import numpy as np

from llmhpo.code.lineage import Lineage
from llmhpo.code.regions import Editable
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.edited import CodeExecutor
from llmhpo.executors.local import LocalExecutor
from llmhpo.executors.scorer import Scorer
from llmhpo.executors.workspace import Workspace
from llmhpo.scoring.base import Scoring
from llmhpo.trial import Task
from llmhpo.tripwires import Expectations

TRAIN = "import model\nmodel.main()\n"
LABELS = np.arange(40) % 2
HALF = "np.where(np.arange(40) < 20, x % 2, 0)"  # accuracy 0.75
HONEST = f"""
import numpy as np
from llmhpo import job
def main():
    x = np.load(job.inputs())
    job.report(0, 0.5)
    job.predictions({HALF})
"""
ACCURACY = "def score(predictions, labels):\n    return float((predictions == labels).mean())\n"


class Project:
    """A project of the user's with an editable model.py, its sealed data, and a repository of revisions."""

    def __init__(self, bench, sandbox=None):
        self.bench, self.sandbox, self.labels = bench, sandbox, None
        self.root, self.sealed = bench.folder / "project", bench.folder / "sealed"
        for folder in (self.root, self.sealed):
            folder.mkdir()
        (self.root / "train.py").write_text(TRAIN)
        (self.root / "model.py").write_text(HONEST)
        (self.sealed / "score.py").write_text(ACCURACY)
        np.save(self.sealed / "x.npy", np.arange(40))
        np.save(self.sealed / "y.npy", LABELS)
        np.save(self.sealed / "x2.npy", np.arange(40)[::-1])
        np.save(self.sealed / "y2.npy", LABELS[::-1])
        self.lineage = Lineage(bench.folder / "code.git")

    @property
    def baseline(self):
        return self.lineage.baseline(self.root)

    @property
    def scoring(self):
        names = {"search": ("x", "y"), "promotion": ("x2", "y2")}
        splits = {name: {"inputs": f"{x}.npy", "labels": f"{y}.npy"} for name, (x, y) in names.items()}
        if self.labels is not None:
            splits["search"]["labels"] = self.labels
        return Scoring.of("score.py", splits, folder=self.sealed)

    def edit(self, **files):
        return self.lineage.commit(self.baseline, {f"{name}.py": text for name, text in files.items()})

    def workspace(self, scored=True, **settings):
        editable = Editable.of(["model.py"], self.lineage.files(self.baseline))
        scoring = self.scoring if scored else None
        return Workspace(self.lineage, self.root, self.baseline, editable, scoring=scoring, **settings)

    def executor(self, scored=True, known=(), seconds=(), data=(), writable=(), **settings):
        settings = {"grace_s": 0.3, "env": {"TEST_TAG": self.bench.tag}} | settings
        command = CommandTemplate(["{python}", "train.py"], None, self.root)
        scorer = Scorer(self.scoring, sandbox=self.sandbox) if scored else None
        inner = LocalExecutor(command, sandbox=self.sandbox, scorer=scorer, **settings)
        expect = lambda job: Expectations(tuple(known), tuple(seconds))  # noqa: E731
        workspace = self.workspace(scored, data=data, writable=writable)
        return self.bench.keep(CodeExecutor(inner, workspace, expect=expect))

    def run(self, model, job=None, **settings):
        task = Task(metric="value", direction="maximize", timeout_s=60.0, bounds=(0, 1))
        job = replace(job or self.bench.job(), code=self.edit(model=model), task=task)
        return self.executor(**settings).submit(job).result(110)


def main(body):
    """A model.py whose `main` is `body`, with the honest one's imports."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return f"import json, os, sys\nimport numpy as np\nfrom llmhpo import job\ndef main():\n    x = np.load(job.inputs())\n{lines}\n"


HONESTLY = f"job.predictions({HALF})"
