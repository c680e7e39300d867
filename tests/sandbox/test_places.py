"""What a sandbox shows: the parts that are pure functions."""

import re
import sys
from pathlib import Path

import pytest

from llmhpo.sandbox import seccomp
from llmhpo.sandbox.places import allowed, around, environment_paths

HEADERS = [Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm-generic/unistd.h")]


@pytest.mark.parametrize("column, header", list(enumerate(HEADERS)), ids=["x86_64", "aarch64"])
def test_numbers_of_system_calls_are_those_of_the_headers(column, header):
    if not header.exists():
        pytest.skip(f"{header} is not there")
    listed = {
        n: int(v) for n, v in re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text(), re.MULTILINE)
    }
    known = {name: numbers[column] for name, numbers in seccomp.NUMBERS.items() if name in listed}
    assert known == {name: listed[name] for name in known}
    assert len(known) > 60


@pytest.mark.parametrize("machine", seccomp.ARCHES)
def test_a_filter_has_no_jump_beyond_its_end_and_fits_the_kernel(machine):
    code = seccomp.program(machine)
    steps = [(int.from_bytes(code[i : i + 2], "little"), code[i + 2], code[i + 3]) for i in range(0, len(code), 8)]
    assert len(steps) < 4096
    assert all(at + 1 + max(true, false) < len(steps) for at, (what, true, false) in enumerate(steps) if what & 7 == 5)


def test_the_parts_around_what_is_hidden_are_shown(tmp_path):
    for name in ("a/x", "a/y/z", "b"):
        (tmp_path / name).mkdir(parents=True)
    shown = around(tmp_path, [tmp_path / "a" / "y", tmp_path / "b"])
    assert shown == [tmp_path / "a" / "x"]


def test_nothing_hidden_leaves_the_whole(tmp_path):
    assert around(tmp_path, [Path("/elsewhere")]) == [tmp_path]


def test_a_program_s_virtual_environment_and_its_origin_are_shown(tmp_path):
    base, venv = tmp_path / "base", tmp_path / "venv"
    for folder in (base / "bin", base / "lib" / "python3.11", venv / "bin"):
        folder.mkdir(parents=True)
    (base / "bin" / "python3.11").touch()
    (venv / "bin" / "python").symlink_to(base / "bin" / "python3.11")
    (venv / "pyvenv.cfg").touch()
    assert {base, venv} <= set(environment_paths(str(venv / "bin" / "python")))


def test_a_home_folder_with_programs_in_it_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "lib" / "python3").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tool").touch()
    assert tmp_path not in environment_paths(str(tmp_path / "bin" / "tool"))
    assert tmp_path / "bin" / "tool" in environment_paths(str(tmp_path / "bin" / "tool"))


def test_folders_of_the_system_are_not_listed_again():
    assert not any(path.is_relative_to("/usr") for path in environment_paths(sys.executable))


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "LLMHPO_OPENAI_KEY",
        "CUDA_SECRET",
        "TORCH_TOKEN",
        "SSH_AUTH_SOCK",
        "HOME",
        "LD_PRELOAD",
        "PYTHONSTARTUP_KEY",
    ],
)
def test_a_variable_that_could_hold_a_key_or_a_way_out_does_not_pass(name):
    assert allowed({name: "x"}) == {}


@pytest.mark.parametrize(
    "name", ["PATH", "OMP_NUM_THREADS", "PYTHONHASHSEED", "LLMHPO_DIR", "TOKENIZERS_PARALLELISM", "LC_ALL"]
)
def test_a_variable_that_steers_libraries_passes(name):
    assert allowed({name: "x"}) == {name: "x"}
