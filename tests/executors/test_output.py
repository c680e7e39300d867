"""What is kept of what a job prints, with real processes. Numbers in comments are cases of the hazard list."""

import re
import resource
import subprocess
import sys
import time

import pytest

from llmhpo.errors import ConfigError


def test_much_output_passes_quickly_and_little_of_it_is_kept(bench):  # 41
    code = "import os\nx = (b'y' * 99 + b'\\n') * 10000\nprint('first', flush=True)\nfor _ in range(1000): os.write(1, x)\nprint('last')"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as plain:
        while plain.stdout.read1(1 << 16):
            pass
    plain_s = time.monotonic() - start
    outcome = bench.run(code, timeout_s=90.0)
    assert outcome.seconds < max(20.0, 10 * plain_s)
    assert outcome.log_tail.endswith("last")
    log = (bench.folder / "trial0" / "output.log").read_bytes()
    assert len(log) < (1 << 20) + 100
    assert log.startswith(b"first\n")
    assert int(re.search(rb"\[\.\.\. (\d+) bytes left out", log)[1]) > 990_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_line_of_ten_megabytes_is_cut(bench):  # 40
    outcome = bench.run("print('x' * 10_000_000 + 'end')")
    assert len(outcome.log_tail) < 1000
    assert outcome.log_tail.endswith("end")


def test_a_short_output_is_kept_whole(bench):
    bench.run("for i in range(1000): print(i)")
    assert (bench.folder / "trial0" / "output.log").read_text().split() == [str(i) for i in range(1000)]


def test_the_log_is_bounded_by_its_limit_to_the_byte(bench):
    bench.run("import os; os.write(1, bytes(range(48, 58)) * 1000)", log_limit=2000)
    log = (bench.folder / "trial0" / "output.log").read_bytes()
    assert log == b"0123456789" * 100 + b"\n[... 8000 bytes left out ...]\n" + b"0123456789" * 100


def test_invalid_and_active_characters_are_made_harmless(bench):  # 42, 43, 44
    code = r"import os; os.write(1, b'\xff\xfe a\x00b \x1b[31mred\x1b[0m \x1b]0;t\x07 \xe2\x80\xae end')"
    tail = bench.run(code).log_tail
    assert not set(tail) & set("\x00\x1b\x07\u202e")
    assert "red" in tail
    assert tail.endswith("end")


def test_a_child_that_keeps_standard_output_open_holds_nothing_up(bench):
    start = time.monotonic()
    bench.run("import os, time\nif os.fork() == 0: time.sleep(60)")
    assert time.monotonic() - start < 30  # it would for 60


def test_the_metric_can_be_read_from_the_output(bench):
    outcome = bench.run("print('loss: 3')\nprint('loss: 0.5')", metric_pattern=r"^loss: (\S+)")
    assert (outcome.status, outcome.value) == ("ok", 0.5)


def test_a_bad_pattern_is_refused_before_anything_runs(bench):
    with pytest.raises(ConfigError, match="metric_pattern"):
        bench.executor("pass", metric_pattern="loss")
