"""The house of CONTRIBUTING.md: imports point down."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import llmhpo

ROOT = Path(llmhpo.__file__).parent
LAYERS = [
    {"errors"},
    {"bare", "bounds", "comparison", "param", "space", "steering", "view", "prior", "revision", "usage", "transfer", "trial", "tripwires", "columns", "trust", "prompts", "cards", "history", "events", "job", "callbacks", "disk", "scratch", "draws", "conditions"},
    {"store", "llm", "reading", "code", "sandbox", "scoring"},
    {"surrogates", "executors", "agents", "spec"},
    {"aside", "attempts", "audit", "loop", "confirmation", "discovery", "drawn", "editing", "rules"},
    {"config", "execution", "result", "session", "api", "report", "study", "sampler", "sklearn", "mcp", "operations", "telling", "chat", "progress", "stopping", "draft", "commands", "cli", "__main__"},
]  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("llmhpo"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("llmhpo.")}
    return found


def files() -> list[Path]:
    return [p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py" and "_demo" not in p.parts]


def test_every_room_has_a_floor() -> None:
    assert {room(p) for p in files()} == set(LEVEL)


def test_imports_point_down() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files()
        for name in imported(path)
        if LEVEL[name] > LEVEL[room(path)]
    ]
    assert wrong == []


def test_rooms_of_one_floor_form_no_circle() -> None:
    needs: dict[str, set[str]] = {name: set() for name in LEVEL}
    for path in files():
        needs[room(path)] |= imported(path) - {room(path)}
    done: set[str] = set()
    while ready := {n for n, needed in needs.items() if n not in done and needed <= done}:
        done |= ready
    assert done == set(LEVEL)


def test_import_is_light() -> None:
    code = textwrap.dedent(
        """
        import sys, llmhpo
        llmhpo.optimize, llmhpo.Study, llmhpo.LLMSampler, llmhpo.SearchSpace, llmhpo.make_llm
        print([m for m in ("torch", "transformers", "openai", "anthropic", "scipy.stats") if m in sys.modules])
        """
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_exported_name_is_there_and_documented() -> None:
    for name in llmhpo.__all__:
        assert getattr(llmhpo, name).__doc__


def test_test_files_have_names_of_their_own() -> None:
    """pytest cannot collect two of one name from folders that are no packages."""
    names = [p.name for p in (Path(__file__).parent).rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
