"""Trials of edited code that are run once more, because they are too good, too fast, or all alike."""

import json
from dataclasses import replace

from project import HONEST, HONESTLY, main

from llmhpo.trial import Task
from llmhpo.tripwires import CHANGED, CONSTANT, FAST, JUMP, rerun_seed

ALL = "job.predictions(x % 2)"
BY_SEED = f"""
print(job.seed())
if job.seed() == 0:
    {ALL}
else:
    {HONESTLY}
"""
KNOWN = (0.5, 0.52, 0.55, 0.53, 0.51)


def test_a_jump_that_another_seed_repeats_counts_with_its_flag(project, bench):
    outcome = project.run(main(ALL), known=KNOWN)
    assert (outcome.status, outcome.value, outcome.flags) == ("ok", 1.0, (JUMP,))
    assert "run once more on another seed" in outcome.message
    params = json.loads((bench.folder / "trial0.again" / "params.json").read_text())
    assert params == bench.job().params


def test_a_jump_that_depends_on_the_seed_gains_nothing(project, bench):
    outcome = project.run(main(BY_SEED), known=KNOWN)
    assert (outcome.status, outcome.value, outcome.flags) == ("ok", 0.75, (JUMP,))
    assert "run once more on another seed: 1 and 0.75, the worse counts" in outcome.message
    assert str(rerun_seed(0)) in (bench.folder / "trial0.again" / "output.log").read_text()


def test_a_jump_that_lives_off_its_own_checkpoint_gains_nothing(project, bench):
    body = f"""
mark = os.environ['LLMHPO_CHECKPOINT_DIR'] + '/again'
if os.path.exists(mark) or job.seed() == 0:
    {ALL}
else:
    {HONESTLY}
open(mark, 'w').close()
"""
    (bench.folder / "kept").mkdir()
    job = bench.job(env={"LLMHPO_CHECKPOINT_DIR": str(bench.folder / "kept")})
    outcome = project.run(main(body), job, known=KNOWN)
    assert (outcome.status, outcome.value) == ("ok", 0.75)


def test_a_run_that_cannot_be_repeated_is_invalid(project):
    outcome = project.run(main(f"assert job.seed() == 0, 'not this one'\n{ALL}"), known=KNOWN)
    assert (outcome.status, outcome.value) == ("invalid", None)
    assert "run once more on another seed, failed" in outcome.message
    assert "not this one" in outcome.message


def test_a_second_run_that_was_cut_off_from_outside_is_lost_and_says_nothing_of_the_edit(project):
    outcome = project.run(main(f"if job.seed() != 0:\n    os.kill(os.getpid(), 9)\n{ALL}"), known=KNOWN)
    assert (outcome.lost, outcome.value) == (True, None)
    assert outcome.status != "invalid"


def test_constant_predictions_are_run_again_and_keep_their_flag(project):
    outcome = project.run(main("job.predictions(np.zeros(40))"))
    assert (outcome.status, outcome.value, outcome.flags) == ("ok", 0.5, (CONSTANT,))


def test_a_trial_that_is_too_fast_is_run_again(project):
    outcome = project.run(HONEST, seconds=(100.0, 90.0))
    assert (outcome.value, outcome.flags) == (0.75, (FAST,))


def test_an_ordinary_trial_runs_once(project, bench):
    assert project.run(HONEST, known=(0.7, 0.75, 0.72, 0.71, 0.74), seconds=(0.1,)).flags == ()
    assert not (bench.folder / "trial0.again").exists()


def test_a_job_that_changes_its_own_code_on_the_disk_gets_no_value(project):
    body = f"os.chmod('.', 0o700); os.chmod('train.py', 0o600)\nopen('train.py', 'a').write('# mine')\n{ALL}"
    outcome = project.run(main(body))
    assert (outcome.status, outcome.value, outcome.flags) == ("invalid", None, (CHANGED,))
    assert "'train.py' is not as it was before the run" in outcome.message


def test_a_job_without_a_sandbox_that_changes_the_scorer_gets_no_value(project):
    body = f"open('{project.sealed}/score.py', 'w').write('def score(p, y):\\n    return 1.0\\n')\n{ALL}"
    outcome = project.run(main(body))
    assert (outcome.status, outcome.value, outcome.flags) == ("invalid", None, (CHANGED,))


def test_cancelling_during_the_second_run_leaves_nothing(project, bench):
    executor = project.executor(known=KNOWN)
    body = f"open('{bench.folder}/' + str(job.seed()), 'w').close()\nimport time\nif job.seed(): time.sleep(60)\n{ALL}"
    code = project.edit(model=main(body))
    task = Task(direction="maximize", timeout_s=90)
    future = executor.submit(replace(bench.job(), code=code, task=task))
    bench.wait_for((bench.folder / str(rerun_seed(0))).exists, 30)
    executor.shutdown(kill=True)
    assert future.cancelled()
    assert bench.living() == []
    assert not list(bench.folder.glob("*.code"))
