"""Runs of a revision: its code, its data, its folders. Numbers in comments are cases of the hazard list."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from project import HONEST, HONESTLY, LABELS, main

from llmhpo.code.listing import plain_path
from llmhpo.errors import ConfigError
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.edited import CodeExecutor
from llmhpo.executors.local import LocalExecutor
from llmhpo.tripwires import CHANGED


def test_a_job_with_a_checkout_runs_there(bench):
    executor = bench.executor("import os\nfrom llmhpo import job\njob.result(len(os.listdir('.')))")
    tree = bench.folder / "checkout"
    tree.mkdir()
    (tree / "job0.py").write_text("from llmhpo import job\njob.result(42)")
    assert executor.submit(replace(bench.job(), tree=tree)).result(30).value == 42


def test_a_revision_is_run_and_scored_and_its_folder_is_gone_afterwards(fenced, bench):
    outcome = fenced.run(HONEST)
    assert (outcome.status, outcome.value, outcome.flags) == ("ok", 0.75, ()), outcome.log_tail
    assert outcome.sandbox.startswith(fenced.sandbox.name)
    assert not outcome.self_reported
    assert [path.name for path in bench.folder.glob("trial0*")] == ["trial0"]


def test_the_repository_says_which_revision_a_trial_ran(project, bench):
    code = project.edit(model=HONEST)
    executor = project.executor()
    for number, revision in enumerate((project.baseline, code)):
        executor.submit(replace(bench.job(number), code=revision)).result(60)
    ran = {entry.id: (entry.parent, entry.trials) for entry in project.lineage.log()}
    assert ran == {project.baseline: ("", (0,)), code: (project.baseline, (1,))}


def test_a_job_without_a_revision_runs_the_users_own_tree(project, bench):
    (project.root / "model.py").write_text(main(HONESTLY + "\nopen('here', 'w').close()"))
    outcome = project.executor().submit(bench.job()).result(30)
    assert outcome.value == 0.75
    assert (project.root / "here").exists()


def test_the_users_tree_is_not_what_a_revision_runs(fenced):
    code = fenced.edit(model=HONEST)
    (fenced.root / "model.py").write_text("raise SystemExit('the user writes at something else')")
    outcome = fenced.executor().submit(replace(fenced.bench.job(), code=code)).result(60)
    assert outcome.value == 0.75, outcome.log_tail


def test_without_a_scorer_an_edited_trial_is_self_reported(project):
    model = "from llmhpo import job\ndef main():\n    job.report(0, 0.25)\n    job.result(0.5)\n"
    outcome = project.run(model, scored=False)
    assert (outcome.value, outcome.self_reported, outcome.sandbox) == (0.5, True, "none")
    assert len(outcome.fingerprint) == 32


def test_equal_losses_have_one_fingerprint_and_others_another(project, bench):
    model = "from llmhpo import job\ndef main():\n    job.report(0, {loss})\n    job.result(0.5)\n"
    marks = [project.run(model.format(loss=v), bench.job(i), scored=False).fingerprint for i, v in enumerate((1, 1, 2))]
    assert marks[0] == marks[1] != marks[2]


def test_the_code_is_read_only_and_what_is_named_writable_is_the_jobs_own(fenced, bench):
    (fenced.root / "checkpoints").mkdir()
    (fenced.root / "checkpoints" / "start.txt").write_text("7")
    model = main(f"""
open('checkpoints/more.txt', 'w').write(open('checkpoints/start.txt').read())
open('made/new.txt', 'w').close()
try:
    open('model.py', 'a').write('x')
    open('other.py', 'w').write('x')
except OSError:
    {HONESTLY}
""")
    outcome = fenced.run(model, writable=[fenced.root / "checkpoints", fenced.root / "made"])
    assert outcome.value == 0.75, outcome.log_tail
    assert (bench.folder / "trial0" / "scratch" / "checkpoints" / "more.txt").read_text() == "7"
    assert sorted(path.name for path in fenced.root.iterdir()) == ["checkpoints", "model.py", "train.py"]


def test_data_is_found_where_the_user_has_it_and_is_read_only(fenced):
    (fenced.root / "data").mkdir()
    (fenced.root / "data" / "train.txt").write_text("1 2 3")
    fenced.lineage.baseline(fenced.root, leave_out=[fenced.root / "data"])
    model = main(f"""
assert open('data/train.txt').read() == '1 2 3'
try:
    open('data/train.txt', 'w').write('0')
except OSError:
    {HONESTLY}
""")
    outcome = fenced.run(model, data=[fenced.root / "data"])
    assert outcome.value == 0.75, outcome.log_tail
    assert (fenced.root / "data" / "train.txt").read_text() == "1 2 3"


def test_labels_among_the_data_stay_unseen(fenced):
    (fenced.root / "data").mkdir()
    (fenced.root / "data" / "train.txt").write_text("1")
    np.save(fenced.root / "data" / "y.npy", LABELS)
    fenced.lineage.baseline(fenced.root, leave_out=[fenced.root / "data"])
    fenced.labels = fenced.root / "data" / "y.npy"
    model = main(f"""
assert open('data/train.txt').read() == '1'
try:
    job.predictions(np.load('data/y.npy'))
except (OSError, ValueError, EOFError):
    {HONESTLY}
""")
    assert fenced.run(model, data=[fenced.root / "data"]).value == 0.75


def test_labels_among_data_behind_a_link_stay_unseen(fenced):
    apart = fenced.root.parent / "apart"
    apart.mkdir()
    np.save(apart / "y.npy", LABELS)
    (fenced.root / "data").symlink_to(apart)
    fenced.lineage.baseline(fenced.root, leave_out=[fenced.root / "data"])
    fenced.labels = apart / "y.npy"
    model = main(f"""
for place in ('data/y.npy', {str(apart / "y.npy")!r}):
    try:
        np.load(place)
    except (OSError, ValueError, EOFError):
        continue
    raise SystemExit('seen at ' + place)
{HONESTLY}
""")
    outcome = fenced.run(model, data=[fenced.root / "data"])
    assert outcome.value == 0.75, outcome.log_tail


def test_labels_in_the_snapshot_are_refused_before_anything_runs(project):
    (project.root / "copy.npy").write_bytes((project.sealed / "y.npy").read_bytes())
    with pytest.raises(ConfigError, match=r"y.npy' must stay unseen.*holds it as 'copy.npy'"):
        project.workspace()


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"data": ["none"]}, "none' does not exist"),
        ({"writable": ["../out"]}, "is no folder inside"),
        ({"writable": ["link/out"]}, "is no folder inside"),
        ({"writable": ["."]}, "is no folder inside"),
        ({"writable": ["model.py"]}, "which is editable"),
    ],
    ids=str,
)
def test_a_mistake_in_the_layout_is_named(project, settings, words):
    (project.root / "link").symlink_to(project.sealed)
    paths = {name: tuple(plain_path(project.root / path) for path in values) for name, values in settings.items()}
    with pytest.raises(ConfigError, match=words):
        project.workspace(**paths)


def test_a_revision_that_changes_a_protected_file_is_not_run(project, bench):  # 66
    for files in ({"train": "raise SystemExit"}, {"numpy": "1"}):
        outcome = project.executor().submit(replace(bench.job(), code=project.edit(**files))).result(30)
        assert (outcome.status, outcome.flags) == ("invalid", (CHANGED,))
        assert "which is not editable" in outcome.message
    assert not (bench.folder / "trial0").exists()


def test_modules_of_the_users_tree_on_the_path_are_the_revisions(fenced, monkeypatch):
    (fenced.root / "src").mkdir()
    (fenced.root / "src" / "tool.py").write_text("VALUE = 1\n")
    path = os.pathsep.join([str(fenced.root / "src"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    model = main(f"import tool\nassert '.code' in tool.__file__, tool.__file__\n{HONESTLY}")
    assert fenced.run(model).value == 0.75


def test_an_environment_in_the_users_tree_runs_the_revision(project, bench):
    (project.root / "venv" / "bin").mkdir(parents=True)
    (project.root / "venv" / "bin" / "python").symlink_to(sys.executable)
    code = project.edit(model="import os\ndef main():\n    open(os.environ['LLMHPO_RESULT'], 'w').write('0.5')\n")
    inner = LocalExecutor(CommandTemplate(["venv/bin/python", "train.py"], None, project.root), grace_s=0.3)
    executor = bench.keep(CodeExecutor(inner, project.workspace(scored=False)))
    outcome = executor.submit(replace(bench.job(), code=code)).result(30)
    assert outcome.value == 0.5, outcome.log_tail


def test_what_an_interrupted_attempt_left_in_its_folders_does_not_matter(fenced, bench):
    for name in ("trial0.code", "trial0/scratch/made", "trial0.again"):
        (bench.folder / name).mkdir(parents=True)
        (bench.folder / name / "model.py").write_text("raise SystemExit(1)")
    (bench.folder / "trial0.code").chmod(0o500)
    assert fenced.run(HONEST, writable=[fenced.root / "made"]).value == 0.75


def test_a_failed_revision_says_why(fenced):
    outcome = fenced.run(main("raise ValueError('shapes differ')"))
    assert (outcome.status, outcome.value) == ("failed", None)
    assert "ValueError: shapes differ" in outcome.message
    assert "model.py" in outcome.log_tail


CONTROLLER = """
import sys
from pathlib import Path
from llmhpo.executors.base import Job
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.edited import CodeExecutor
from llmhpo.executors.local import LocalExecutor
from llmhpo.executors.workspace import Workspace
from llmhpo.code.lineage import Lineage
from llmhpo.code.listing import plain_path
from llmhpo.code.regions import Editable
from llmhpo.sandbox.choose import choose_sandbox
from llmhpo.trial import Task

if __name__ == "__main__":
    folder, code, level, tag = sys.argv[1:]
    root, lineage = Path(folder) / "project", Lineage(Path(folder) / "code.git")
    baseline = lineage.baseline(root)
    workspace = Workspace(lineage, root, baseline, Editable.of(["model.py"], lineage.files(baseline)))
    command = CommandTemplate(["{python}", "train.py"], None, root)
    inner = LocalExecutor(command, sandbox=choose_sandbox(level), env={"TEST_TAG": tag}, grace_s=0.3)
    CodeExecutor(inner, workspace).submit(Job(0, {}, Task(), Path(folder) / "00000", code=code)).result()
"""


def test_a_killed_controller_leaves_no_process_and_the_next_attempt_no_trace_of_the_first(fenced, bench):
    body = "open(os.environ['LLMHPO_DIR'] + '/up', 'w').close()\nimport time; time.sleep(60)"
    code = fenced.edit(model=main(body).replace("    x = np.load(job.inputs())\n", ""))
    (bench.folder / "controller.py").write_text(CONTROLLER)
    words = [str(bench.folder), code, fenced.sandbox.name, bench.tag]
    with subprocess.Popen([sys.executable, str(bench.folder / "controller.py"), *words]) as controller:
        try:
            bench.wait_for((bench.folder / "00000" / "up").exists, 30)
            assert (bench.folder / "00000.code" / "model.py").exists()
        finally:
            controller.kill()
    bench.wait_for(lambda: bench.living() == [], 15)
    job = replace(bench.job(), directory=bench.folder / "00000.2", code=fenced.edit(model=HONEST))
    assert fenced.executor().submit(job).result(60).value == 0.75
    assert sorted(p.name for p in bench.folder.glob("*00000*")) == ["00000", "00000.2"]
