"""Arguments that are added in loops: read where it is sure that the loop adds each row as it stands."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmhpo.reading.script import Reading

Read = Callable[..., Reading]


@pytest.mark.parametrize(
    "loop",
    [
        'T = {"lr": (float, 0.02), "l2_reg": (float, 1e-5)}\nfor name, (kind, d) in T.items():\n  p.add_argument(f"--{name}", type=kind, default=d)',
        'for name, d in [("lr", 0.02), ("l2_reg", 1e-5)]:\n  p.add_argument("--" + name.replace("_", "-"), type=float, default=d)',
    ],
)
def test_arguments_that_a_loop_adds_from_a_table_are_found_with_the_line_of_their_row(
    read_text: Read, loop: str
) -> None:
    reading = read_text(
        f"import argparse\np = argparse.ArgumentParser()\n{loop}\np.add_argument('--dropout', type=float, default=0.1)\n"
    )
    assert [(f.name, f.default, f.where.line) for f in reading.tunable] == [
        ("lr", 0.02, 3), ("l2_reg", 1e-5, 3), ("dropout", 0.1, reading.tunable[-1].where.line),
    ]  # fmt: skip


TABLE = 'import argparse\np = argparse.ArgumentParser()\nT = {"lr": 0.1, "dropout": 0.2}\n'


ADD = 'p.add_argument("--" + name, type=float, default=d)\n'


LOOP = f"for name, d in T.items():\n    {ADD}"


def indented(code: str) -> str:
    return "".join(f"    {line}\n" for line in code.splitlines())


@pytest.mark.parametrize(
    "code",
    [
        LOOP,
        f"print(len(T), T['lr'], list(T), 'lr' in T)\n{LOOP}",
        f"for name, d in T.items():\n    print(name)\n    {ADD}",
        f"if __name__ == '__main__':\n{indented(LOOP)}",
        f"def main():\n{indented(LOOP)}\nif __name__ == '__main__':\n    main()\n",
        f"def add():\n{indented(LOOP)}\ndef main():\n    add()\nmain()\n",
        f"class Options:\n    def __init__(self):\n{indented(indented(LOOP))}\no = Options()\n",
        'for name, row in [("lr", {"type": float, "default": 0.1}), ("dropout", dict(type=float, default=0.2))]:\n'
        '    p.add_argument("--" + name, **row)\n',
    ],
)
def test_a_loop_that_adds_each_row_of_a_table_is_read_wherever_it_is_sure_to_run(read_text: Read, code: str) -> None:
    assert {f.name: f.default for f in read_text(TABLE + code).tunable} == {"lr": 0.1, "dropout": 0.2}


@pytest.mark.parametrize(
    "code",
    [
        f"for name, d in T.items():\n    if isinstance(d, bool):\n        p.add_argument('--' + name, action='store_true')\n    else:\n        {ADD}",
        f"for name, d in T.items():\n    if name == 'lr':\n        continue\n    {ADD}",
        f"for name, d in T.items():\n    if name != 'lr':\n        {ADD}",
        f"for name, d in T.items():\n    name = name.replace('lr', 'rate')\n    {ADD}",
        f"for name, d in T.items():\n    {ADD}    if name == 'lr':\n        break\n",
        f"T['lr'] = 0.5\n{LOOP}",
        f"T.pop('lr')\n{LOOP}",
        f"T.update(lr=0.5)\n{LOOP}",
        f"T.setdefault('wd', 0.5)\n{LOOP}",
        f"del T['lr']\n{LOOP}",
        f"T |= {{'lr': 0.5}}\n{LOOP}",
        f"change(T)\n{LOOP}",
        f"same = T\n{LOOP}",
        f"if False:\n{indented(LOOP)}",
        f"while False:\n{indented(LOOP)}",
        f"def add():\n{indented(LOOP)}\nif False:\n    add()\n",
        f"def add():\n{indented(LOOP)}\nprint()\n",
        "R = [['lr', 0.1], ['wd', 0.2]]\nfor r in R:\n    r[1] = 3\nfor name, d in R:\n    " + ADD,
        "R = [{'type': float, 'default': 0.1}]\nfor row in R:\n    row.pop('default')\n    p.add_argument('--lr', **row)\n",
    ],
)
def test_a_loop_whose_rows_may_not_be_added_as_they_stand_adds_nothing(read_text: Read, code: str) -> None:
    assert [f for f in read_text(TABLE + code).tunable if f.passing != "constant"] == []


def test_a_loop_over_what_only_running_would_tell_adds_nothing(read_text: Read) -> None:
    code = "import argparse\np = argparse.ArgumentParser()\nfor n in names():\n  p.add_argument(f'--{n}', type=float, default=0.1)\n"
    assert read_text(code).items == ()
