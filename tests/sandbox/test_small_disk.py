"""On a disk with less space than a job may fill by default, a hog is ended before the disk is full, on which a study would wait."""

import textwrap

from disks import run_on_small_disk

STUDY = textwrap.dedent(
    """
    import os, shutil, sys
    from pathlib import Path
    from llmhpo.executors.base import Job
    from llmhpo.executors.command import CommandTemplate
    from llmhpo.executors.local import LocalExecutor
    from llmhpo.sandbox.choose import choose_sandbox
    from llmhpo.trial import Task
    folder = Path(sys.argv[1])
    assert os.path.ismount(folder)
    (folder / "job.py").write_text(sys.argv[2])
    command = CommandTemplate(["{python}", "job.py"], None, folder)
    executor = LocalExecutor(command, sandbox=choose_sandbox("auto"), grace_s=0.2)
    outcome = executor.submit(Job(0, {}, Task(timeout_s=60), folder / "trial0")).result()
    executor.shutdown(kill=False)
    print(outcome.status, outcome.lost, shutil.disk_usage(folder).free > 10 * 10**6, outcome.message)
    """
)
HOG = textwrap.dedent(
    """
    import os, time
    for i in range(60):
        with open(os.path.join(os.environ["LLMHPO_DIR"], str(i)), "wb") as file:
            file.write(bytes(10**6))
        time.sleep(0.1)
    """
)


def test_a_hog_on_a_small_disk_does_not_fill_it(tmp_path):  # 9
    run = run_on_small_disk(tmp_path, "50m", STUDY, HOG)
    assert run.stdout.startswith("failed False True filled its folder with"), run.stdout + run.stderr
