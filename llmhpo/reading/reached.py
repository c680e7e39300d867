"""Whether a program comes to a place in its code whatever its settings are."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import Final

from llmhpo.reading.values import dotted

_CONDITIONS: Final = (
    ast.If, ast.IfExp, ast.BoolOp, ast.For, ast.AsyncFor, ast.While, ast.comprehension, ast.ListComp, ast.SetComp, ast.DictComp,
    ast.GeneratorExp, ast.Lambda, ast.ExceptHandler, ast.Match, ast.match_case,
)  # fmt: skip
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


class Paths:
    """The ways into each place of a file: `parents` holds the parent of each node, `uses` the places where a name is read."""

    __slots__ = ("_starts", "parents", "uses")

    def __init__(self, tree: ast.Module) -> None:
        self.parents: dict[ast.AST, ast.AST] = {}
        self.uses: defaultdict[str, list[ast.expr]] = defaultdict(list)
        for node in ast.walk(tree):
            self.parents |= dict.fromkeys(ast.iter_child_nodes(node), node)
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
                self.uses[node.id if isinstance(node, ast.Name) else node.attr].append(node)
        lines = (s for s in tree.body if not isinstance(s, (*_FUNCTIONS, ast.ClassDef)))
        self._starts = any(isinstance(n, ast.Call) for s in lines for n in ast.walk(s))

    def is_reached(self, node: ast.AST) -> bool:
        """Whether no condition stands around `node`, nor around the use of the function that it is in.

        `if __name__ == "__main__":` is none. A function that its file does not use counts where the file starts nothing itself: it is
        there to be imported.
        """
        return self._is_reached(node, set())

    def _is_reached(self, node: ast.AST, asked: set[str]) -> bool:
        while not isinstance(parent := self.parents[node], ast.Module):
            if isinstance(parent, _FUNCTIONS):
                return self._is_used(parent, asked)
            is_head = node in (getattr(parent, "test", None), getattr(parent, "iter", None))
            is_main = isinstance(parent, ast.If) and node in parent.body and _asks_for_main(parent.test)
            if isinstance(parent, _CONDITIONS) and not is_head and not is_main:
                return False
            node = parent
        return True

    def _is_used(self, function: ast.FunctionDef | ast.AsyncFunctionDef, asked: set[str]) -> bool:
        outer = self.parents[function]
        name = outer.name if function.name == "__init__" and isinstance(outer, ast.ClassDef) else function.name
        if name in asked:
            return False
        asked.add(name)
        uses = self.uses.get(name, [])
        return any(self._is_reached(use, asked) for use in uses) if uses else not self._starts


def _asks_for_main(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and dotted(test.left) == "__name__" and isinstance(test.ops[0], ast.Eq)
