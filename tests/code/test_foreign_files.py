"""Files as other editors, systems and tools leave them in a project."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmhpo.code.edit import EditError, parse_edit
from llmhpo.code.lineage import Lineage
from llmhpo.code.patch import apply_edit
from llmhpo.code.regions import Editable
from llmhpo.errors import ConfigError
from llmhpo.space import SearchSpace

MARK = "\ufeff"
MODEL = f"{MARK}# llmhpo: begin setup\r\nimport os\r\n# llmhpo: end\r\ndef f():\r\n    return os\r\n"
SPACE = SearchSpace.from_dict({"lr": {"type": "float", "low": 0.0, "high": 1.0}})


def applied(reply: str, files: dict[str, str], spec: str) -> dict[str, str] | EditError:
    edit = parse_edit(reply)
    assert not isinstance(edit, EditError)
    return apply_edit(files, Editable.of([spec], files), edit, space=SPACE)


@pytest.mark.parametrize(
    "spec, reply, new",
    [
        (
            "model.py",
            "FILE: model.py\n<<<<<<< SEARCH\n# llmhpo: begin setup\nimport os\n=======\n# llmhpo: begin setup\nimport re as os\n"
            ">>>>>>> REPLACE\n",
            MODEL.replace("import os", "import re as os"),
        ),
        (
            "model.py#setup",
            "FILE: model.py#setup\n<<<<<<< REWRITE\nimport re as os\n>>>>>>> REWRITE\n",
            MODEL.replace("import os", "import re as os"),
        ),
    ],
)
def test_a_byte_order_mark_stays_and_is_in_nobodys_way(spec: str, reply: str, new: str) -> None:
    assert applied(reply, {"model.py": MODEL}, spec) == {"model.py": new}


def test_a_byte_order_mark_is_not_shown() -> None:
    files = {"model.py": MODEL}
    assert MARK not in Editable.of(["model.py"], files).texts(files)[0][1]


@pytest.mark.parametrize("folder", ["", "part"])
def test_a_file_by_which_git_finds_a_users_repository_is_no_code(tmp_path: Path, folder: str) -> None:
    root = tmp_path / "project"
    (root / folder).mkdir(parents=True)
    (root / "model.py").write_text("x = 1\n")
    (root / folder / ".git").write_text("gitdir: /home/me/project/.git/worktrees/project\n")  # a worktree, a submodule
    lineage = Lineage(tmp_path / "code.git")
    assert list(lineage.blobs(lineage.baseline(root))) == ["model.py"]


@pytest.mark.parametrize(
    "spec, told",
    [
        ("src", "is a folder; name files in it, or all of them: 'src/**'"),
        ("modle.py", "did you mean 'model.py'?"),
        ("latin.py", "one that is not UTF-8"),
    ],
)
def test_what_is_named_and_is_no_text_is_told_with_what_to_write_instead(tmp_path: Path, spec: str, told: str) -> None:
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    for name, data in {
        "model.py": b"x = 1\n",
        "src/net.py": b"x = 1\n",
        "latin.py": "x = 'ä'\n".encode("latin-1"),
    }.items():
        (root / name).write_bytes(data)
    lineage = Lineage(tmp_path / "code.git")
    files = lineage.files(lineage.baseline(root))
    with pytest.raises(ConfigError) as caught:
        Editable.of([spec], files)
    assert told in str(caught.value)
    assert repr(spec) in str(caught.value)
