"""Edited code that cheats: none of it gets another value than an honest 0.75. Numbers in comments are cases of the hazard list."""

from dataclasses import replace

import pytest
from project import ACCURACY, HONESTLY, main

FORGERIES = {
    "printed metric": f"{HONESTLY}\nprint('value: 1.0')\nprint(json.dumps({{'value': 1.0}}))",  # 33
    "result file": f"{HONESTLY}\njob.result(1.0)",  # 34
    "result of the scorer": f"{HONESTLY}\nprint('\\n' + 'a' * 32 + ' {{\"result\": 1.0}}')",
    "overwritten result": f"{HONESTLY}\nopen(os.environ['LLMHPO_DIR'] + '/result.json', 'w').write('1.0')",  # 34
    "infinite result": f"{HONESTLY}\nopen(os.environ['LLMHPO_RESULT'], 'w').write('1e999')",  # 36
    "text as a result": f"{HONESTLY}\nopen(os.environ['LLMHPO_RESULT'], 'w').write('\"1.0\"')",  # 37
    "boolean": f"{HONESTLY}\njob.result(True)",  # 37
    "out of bounds": f"{HONESTLY}\njob.result(99.0)",  # 38
    "extra metrics": f"{HONESTLY}\njob.result(dict({{str(i): i for i in range(1000)}}, value=1.0))",  # 39
    "bad curve": f"{HONESTLY}\nopen(os.environ['LLMHPO_REPORT'], 'w').write('{{\"step\": 0, \"value\": 1e999}}\\n' * 9)",
    "patched scorer": """
for name in ('score.py', 'y.npy'):
    for place in ('{sealed}', '.', os.environ['LLMHPO_DIR']):
        try:
            open(f'{place}/{name}', 'w').write('def score(p, y):\\n    return 1.0\\n')
        except OSError:
            pass
"""
    + HONESTLY,
    "labels": f"""
try:
    job.predictions(np.load('{{sealed}}/y.npy'))
except (OSError, ValueError, EOFError):
    {HONESTLY}
""",
    "other split": f"""
try:
    x = np.load('{{sealed}}/x2.npy')
except (OSError, ValueError, EOFError):
    pass
{HONESTLY}
""",
    "patched training split": f"""
try:
    os.environ['LLMHPO_SPLIT'] = 'promotion'
    open('{{sealed}}/x.npy', 'w').write('x')
except OSError:
    pass
{HONESTLY}
""",
    "patched numpy": f"{HONESTLY}\nnp.equal = np.mean = lambda *_: 1.0\nopen(os.environ['LLMHPO_DIR'] + '/numpy.py', 'w').write('x')",
    "patched llmhpo": f"""
import llmhpo
try:
    open(os.path.dirname(llmhpo.__file__) + '/scoring/child.py', 'a').close()
except OSError:
    {HONESTLY}
""",  # opening is the attempt: what is run here is the module under test
    "start-up code": f"""
import site
escaped = []
for place in (site.getusersitepackages(), *site.getsitepackages()):
    try:
        os.makedirs(place, exist_ok=True)
        open(place + '/usercustomize.py', 'x').close()
        os.unlink(place + '/usercustomize.py')
        escaped.append(place)
    except OSError:
        pass
if not escaped:
    {HONESTLY}
""",  # 23
    "parent's memory": f"""
for pid in (1, os.getppid()):
    for name in ('environ', 'mem'):
        try:
            open(f'/proc/{{pid}}/{{name}}', 'r+b').write(b'0')
        except OSError:
            pass
{HONESTLY}
""",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_metric_is_not_believed(fenced, name):
    body = FORGERIES[name].replace("{sealed}", str(fenced.sealed))
    outcome = fenced.run(main(body))
    assert (outcome.status, outcome.value) == ("ok", 0.75), outcome.message + outcome.log_tail
    assert (fenced.sealed / "score.py").read_text() == ACCURACY


PATH = "path = os.environ['LLMHPO_PREDICTIONS']\n"
REFUSED = {
    "NaN": "job.predictions(np.full(40, np.nan))",  # 35
    "infinite": "job.predictions(np.full(40, 1e999))",  # 36
    "text": PATH + "np.save(path, np.array(['1'] * 40))",  # 37
    "wrong split": "job.predictions(np.zeros(39))",
    "nothing": "job.result(1.0)",  # 39
    "link to labels": PATH + "os.symlink('{sealed}/y.npy', path)",  # 20
    "link to the folder": PATH + "os.mkdir(path)",
    "FIFO": PATH + "os.mkfifo(path)",  # 21
    "sparse": PATH + "os.truncate(os.open(path, os.O_RDWR | os.O_CREAT), 1 << 33)",  # 11
    "pickle": PATH + "np.save(path, np.array([None] * 40), allow_pickle=True)",  # 31
    "exit without predictions": "os._exit(0)",  # 29
}


@pytest.mark.parametrize("name", REFUSED)
def test_predictions_that_are_none_are_refused(fenced, name):
    outcome = fenced.run(main(REFUSED[name].replace("{sealed}", str(fenced.sealed))))
    assert outcome.value is None
    assert outcome.status in ("invalid", "failed")  # a sandbox may not let the file be made
    assert outcome.message


def test_a_hard_link_to_the_labels_is_no_prediction(fenced):  # 22
    outcome = fenced.run(main(PATH + f"os.link('{fenced.sealed}/y.npy', path)"))
    assert outcome.value is None


def test_a_result_after_the_time_out_does_not_count(fenced, bench):  # 48
    body = f"{HONESTLY}\nimport signal, time\nsignal.signal(signal.SIGTERM, lambda *_: job.result(1.0))\ntime.sleep(60)\ntime.sleep(60)"
    executor = fenced.executor()
    job = replace(bench.job(timeout_s=1.5), code=fenced.edit(model=main(body)))
    outcome = executor.submit(job).result(60)
    assert (outcome.status, outcome.value) == ("timeout", None)


def test_a_daemon_that_would_improve_the_predictions_later_is_dead_by_then(fenced, bench):  # 7
    body = f"""
{HONESTLY}
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        import time
        time.sleep(0.5)
        while True:
            job.predictions(x % 2)
    os._exit(0)
"""
    outcome = fenced.run(main(body))
    assert outcome.value == 0.75
    assert bench.living() == []


SAID = {
    "NaN": ("job.result(float('nan'))", "not finite"),  # 35
    "infinite": ("open(os.environ['LLMHPO_RESULT'], 'w').write('{\"value\": 1e999}')", "not finite"),  # 36
    "boolean": ("job.result(True)", "is a bool"),  # 37
    "text": ("open(os.environ['LLMHPO_RESULT'], 'w').write('\"0.5\"')", "is a str"),  # 37
    "out of bounds": ("job.result(1.5)", "outside its metric_bounds"),  # 38
    "missing": ("job.result({'loss': 0.1})", "has no metric 'value'"),  # 39
    "printed": ("print('value: 1.0')", "left no result"),  # 33
    "huge": ("open(os.environ['LLMHPO_RESULT'], 'w').write('1' * (2 << 20))", "is larger than"),
}


@pytest.mark.parametrize("name", SAID)
def test_what_edited_code_says_of_itself_is_checked_and_marked(project, name):
    body, words = SAID[name]
    outcome = project.run(f"import os\nfrom llmhpo import job\ndef main():\n    {body}\n", scored=False)
    assert (outcome.status, outcome.value, outcome.self_reported) == ("invalid", None, True)
    assert words in outcome.message
