import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhpo.errors import ConfigError
from llmhpo.executors import result
from llmhpo.executors.log import TAIL_CHARS, clean, tail
from llmhpo.executors.result import compile_pattern, ran_out_of_memory, read_reports, read_result


@pytest.fixture
def path(tmp_path):
    return tmp_path / "result.json"


def read(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_result(path, "loss")


@pytest.mark.parametrize(
    "text, value", [("0.5", 0.5), (" 3\n", 3.0), ('{"loss": -1e-3}', -0.001), ('{"loss": 0}', 0.0)]
)
def test_a_bare_number_and_an_object_with_the_metric_are_read(path, text, value):
    assert read(path, text).value == value


def test_other_finite_numbers_become_metrics_and_the_rest_is_left_out(path):
    text = '{"loss": 1, "acc": 0.5, "n": 3, "nan": NaN, "big": 1e999, "ok": true, "s": "1", "l": [1], "\\u202e": 1}'
    assert read(path, text).metrics == {"acc": 0.5, "n": 3.0}


@pytest.mark.parametrize("bounds", [(0, 1), (0, None), (None, 1)], ids=str)
def test_a_metric_inside_its_bounds_is_read(path, bounds):
    path.write_text("1.0")
    assert read_result(path, "loss", bounds=bounds).value == 1.0


@pytest.mark.parametrize("text, bounds", [("1.01", (0, 1)), ("-0.1", (0, None)), ('{"loss": 2}', (None, 1))], ids=str)
def test_a_metric_outside_its_bounds_is_refused_and_named(path, text, bounds):  # 38
    path.write_text(text)
    reading = read_result(path, "loss", bounds=bounds)
    assert reading.value is None
    assert "is outside its metric_bounds" in reading.problem


def test_the_number_of_metrics_is_bounded(path):
    many = {f"m{i}": i for i in range(1000)}
    assert len(read(path, json.dumps(many | {"loss": 1})).metrics) == result.MAX_METRICS


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "not JSON"),
        ("0.5 0.6", "not JSON"),
        ("loss=0.5", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5000, "not JSON"),
        ('{"loss": 1, "loss": 2}', "'loss' stands there twice"),
        ("NaN", "loss = nan is not finite"),
        ('{"loss": Infinity}', "loss = inf is not finite"),
        ('{"loss": 1e999}', "loss = inf is not finite"),
        ('{"loss": 1' + "0" * 400 + "}", "not finite"),
        ('{"loss": true}', "loss = True is a bool"),
        ('{"loss": "0.5"}', "loss = '0.5' is a str"),
        ('{"loss": null}', "loss = None"),
        ("[1]", r"loss = \[1\] is a list"),
        ('{"Loss": 1, "acc": 2}', "no metric 'loss'; it holds 'Loss', 'acc'"),
        ("{}", "it holds nothing"),
    ],
)
def test_anything_else_is_refused_by_name(path, text, words):
    reading = read(path, text)
    assert reading.value is None
    with pytest.raises(ValueError, match=words):
        raise ValueError(reading.problem)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    reading = read(path, data)
    assert (reading.value is None) == bool(reading.problem)
    assert len(reading.problem) < 600
    read_reports(path, "loss")
    tail(data)


def test_a_missing_file_is_told_with_the_remedy(path):
    assert 'write {"loss": number} to the path in LLMHPO_RESULT' in read_result(path, "loss").problem


def test_a_symbolic_link_is_not_followed(path, tmp_path):
    (tmp_path / "other").write_text("0.5")
    path.symlink_to(tmp_path / "other")
    assert "symbolic link" in read_result(path, "loss").problem


def test_a_fifo_is_not_waited_for(path):
    os.mkfifo(path)
    assert "not a regular file" in read_result(path, "loss").problem


def test_a_folder_is_refused(path):
    path.mkdir()
    assert "not a regular file" in read_result(path, "loss").problem


def test_a_device_is_refused(path):
    assert "not a regular file" in read_result(type(path)("/dev/zero"), "loss").problem


def test_a_huge_file_is_not_read_in(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    assert "is larger than" in read_result(path, "loss").problem


# --- patterns -------------------------------------------------------------------------------------------------------


def search(path, pattern, data):
    path.write_bytes(data)
    return read_result(path.with_name("none"), "loss", path, compile_pattern(pattern))


def test_the_last_match_counts(path):
    assert search(path, r"^loss: (\S+)$", b"loss: 1\nval loss: 7\nloss: 0.25\nend\n").value == 0.25


def test_colours_do_not_hide_the_metric(path):
    assert search(path, r"loss: (\S+)", b"\x1b[32mloss:\x1b[0m \x1b[1m0.25\x1b[0m\n").value == 0.25


@pytest.mark.parametrize(
    "data, words",
    [(b"x", "matches nothing"), (b"loss: abc", "'abc', which is not a number"), (b"loss: nan", "not finite")],
)
def test_output_without_a_finite_number_is_refused(path, data, words):
    assert words in search(path, r"loss: (\S+)", data).problem


def test_a_group_that_took_no_part_is_no_match(path):
    assert "matches nothing" in search(path, r"loss(?:: (\d+))?", b"loss").problem


@pytest.mark.parametrize("pattern", ["(", "loss", r"(a)(b)", "(?P<x"])
def test_a_pattern_without_exactly_one_group_is_a_config_error(pattern):
    with pytest.raises(ConfigError, match="metric_pattern="):
        compile_pattern(pattern)


# --- reports --------------------------------------------------------------------------------------------------------


def reports(path, text):
    path.write_text(text)
    return read_reports(path, "loss")


def test_reports_are_sorted_and_the_later_of_equal_steps_counts(path):
    text = '{"step": 2, "value": 1}\n{"step": 1, "loss": 3}\n{"step": 2, "loss": 0.5}\n\n'
    assert reports(path, text) == ([(1, 3.0), (2, 0.5)], "")


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "1",
        "[]",
        '{"step": 1}',
        '{"value": 1}',
        '{"step": true, "value": 1}',
        '{"step": 1.5, "value": 1}',
        '{"step": -1, "value": 1}',
        '{"step": 1, "value": NaN}',
        '{"step": 1, "value": "1"}',
        '{"step": 1, "val',
        "[" * 10_000,
    ],
)
def test_a_bad_line_is_ignored_and_counted(path, line):
    points, note = reports(path, '{"step": 0, "value": 1}\n' + line)
    assert points == [(0, 1.0)]
    assert note.startswith("1 bad report")


def test_a_long_curve_is_thinned_and_keeps_its_ends(path):
    points, _ = reports(path, "".join(f'{{"step": {i}, "value": {i}}}\n' for i in range(5000)))
    assert len(points) == result.MAX_POINTS
    assert (points[0], points[-1]) == ((0, 0.0), (4999, 4999.0))


def test_a_huge_report_file_is_read_up_to_a_limit(path, monkeypatch):
    monkeypatch.setattr(result, "MAX_REPORT_BYTES", 60)
    points, note = reports(path, "".join(f'{{"step": {i}, "value": {i}}}\n' for i in range(9)))
    assert points == [(0, 0.0), (1, 1.0)]
    assert "larger than" in note


# --- logs -----------------------------------------------------------------------------------------------------------


def test_control_sequences_and_characters_do_not_pass():
    data = b"\x1b]0;title\x07a\x1b[31mb\x1b[0m\x00c\x08\x9b1md\x1b]8;;http://x\x1b\\e \xe2\x80\xae\xff"
    text = clean(data)
    assert text.startswith("ab\ufffdc\ufffd")
    assert not set(text) & set("\x00\x07\x08\x1b\x9b\u202e")


def test_of_a_progress_bar_the_last_state_is_kept():
    assert clean(b"10%\r50%\r100%\r\nend") == "100%\nend"


def test_a_tail_is_bounded_and_keeps_the_end():
    text = tail(b"x" * 10_000_000 + b"\n" + b"line\n" * 10_000 + b"the end\n")
    assert len(text) <= TAIL_CHARS
    assert text.endswith("line\nthe end")


def test_a_long_line_is_cut_in_its_middle():
    text = tail(b"begin" + b"x" * 50_000 + b"end")
    assert len(text) < 600
    assert text.startswith("begin")
    assert text.endswith("end")


@pytest.mark.parametrize(
    "text",
    [
        "MemoryError",
        "torch.OutOfMemoryError: CUDA out of memory. Tried",
        "torch.cuda.OutOfMemoryError: x",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate",
        "RuntimeError: CUDA out of memory. Tried to allocate",
        "RuntimeError: CUDA error: out of memory",
        "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.",
        "terminate called after throwing an instance of 'std::bad_alloc'",
    ],
)
def test_what_runs_out_of_memory_is_recognised(text):
    assert ran_out_of_memory(f"Traceback\n{text}\n")


@pytest.mark.parametrize("text", ["ValueError: no", "I handle MemoryError well", "memory: 3 GB"])
def test_other_failures_are_not_taken_for_it(text):
    assert not ran_out_of_memory(text)
