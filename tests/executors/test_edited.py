"""Trials of edited code, with real processes. Numbers in comments are cases of the hazard list."""

from dataclasses import replace


def test_a_job_with_a_checkout_runs_there(bench):
    executor = bench.executor("import os\nfrom llmhpo import job\njob.result(len(os.listdir('.')))")
    tree = bench.folder / "checkout"
    tree.mkdir()
    (tree / "job0.py").write_text("from llmhpo import job\njob.result(42)")
    assert executor.submit(replace(bench.job(), tree=tree)).result(30).value == 42
