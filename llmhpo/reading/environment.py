"""Settings that come from outside without any parser: environment variables, and the words of `sys.argv`."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from llmhpo.param import UNSET, ParamValue, Unset
from llmhpo.reading.base import Found, Kind, Passing, Source, fit, scalar, to_kind
from llmhpo.reading.options import imports
from llmhpo.reading.values import UNKNOWN, dotted

_READS = ("os.environ.get", "environ.get", "os.getenv", "getenv")
_TABLES = ("os.environ", "environ")
_WORDS = ("sys.argv", "argv")
_EXITS = ("exit", "quit", "sys.exit", "os._exit")
_MISSING = ("IndexError", "LookupError")
_CONVERSIONS: dict[str, Kind] = {"float": "float", "int": "int", "str": "str", "Path": "path", "pathlib.Path": "path"}
_OPENS = ("open", "Path", "read_text", "load", "safe_load", "loads", "read_yaml", "read_json")
_FORMATS = {"yaml", "json", "tomllib", "tomli", "toml", "omegaconf", "ruamel"}


def read_environment(source: Source) -> list[Found]:
    """`float(os.environ.get("LR", "0.1"))` and the like: the kind is that of the conversion around it, else the default's.

    `os.environ["LR"] if "LR" in os.environ else 0.1` and `os.getenv("LR") or 0.1` have their defaults too.
    """
    found: dict[str, Found] = {}
    uses = _uses(source.tree)
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call | ast.Subscript) or (key := _key(node)) is None:
            continue
        default = node.args[1] if isinstance(node, ast.Call) and len(node.args) > 1 else None
        name = source.scope.value(key)
        if isinstance(name, str) and name not in found and not name.startswith("LLMHPO_"):
            use = uses.get(id(node), _Use())
            found[name] = _found(source, node, name, "env", use._replace(default=default or use.default))
    return list(found.values())


def read_argv(source: Source) -> list[Found]:
    """`lr = float(sys.argv[1]) if len(sys.argv) > 1 else 0.1`: positional arguments, named by the variables that take them.

    Every position up to the last one is there; one that nothing names is a config file where it is opened as one, else a text. What is
    read only where enough words were given has a default that is computed. [] where two variables take one position.
    """
    uses, names = _uses(source.tree), dict(_targets(source.tree))
    places: dict[int, list[ast.Subscript]] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Subscript) and _is_argv(node.value, source):
            at = source.scope.value(node.slice)
            if isinstance(at, int) and at > 0:
                places.setdefault(at, []).append(node)
    if set(places) != set(range(1, len(places) + 1)):
        return []  # one is taken in some other way: the order of the rest is not known
    opened, optional = _opened(source), _optional(source.tree)
    found = []
    for at, words in sorted(places.items()):
        named = [w for w in words if id(w) in names]
        if len({names[id(w)] for w in named}) > 1:
            return []  # the words before it say what it is
        word = [*named, *words][0]
        use = uses.get(id(word), _Use())
        name = names.get(id(word)) or ("config" if id(word) in opened else f"argument_{at}")
        one = _found(source, word, name, "positional", use if named else use._replace(kind="str"))
        is_optional = use.default is None and all(id(w) in optional for w in words)
        found.append(replace(one, is_computed=one.is_computed or is_optional))
    return found if len({f.name for f in found}) == len(found) else []


def _optional(tree: ast.Module) -> set[int]:
    """The nodes that are reached only where words were given: a program without these goes on."""
    found: set[int] = set()

    def note(*nodes: ast.AST) -> None:
        found.update(id(inner) for node in nodes for inner in ast.walk(node))

    for node in ast.walk(tree):
        if isinstance(node, ast.If) and _counts(node.test):
            for branch, other in ((node.body, node.orelse), (node.orelse, node.body)):
                if not _leaves(other):
                    note(*branch)
        elif isinstance(node, ast.IfExp) and _counts(node.test):
            note(node.body, node.orelse)
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            at = next((i for i, value in enumerate(node.values) if _counts(value)), len(node.values))
            note(*node.values[at + 1 :])
        elif isinstance(node, ast.Try) and any(_catches(h) and not _leaves(h.body) for h in node.handlers):
            note(*node.body)
    return found


def _counts(test: ast.expr) -> bool:
    """Whether a test asks how many words there are: `len(sys.argv) > 1`, `sys.argv[1:]`."""
    return any(
        (isinstance(n, ast.Call) and dotted(n.func) == "len" and any(dotted(a) in _WORDS for a in n.args))
        or (isinstance(n, ast.Subscript) and dotted(n.value) in _WORDS and isinstance(n.slice, ast.Slice))
        for n in ast.walk(test)
    )


def _catches(handler: ast.ExceptHandler) -> bool:
    """Whether a handler is there for a word that is missing: it names the error, or catches any and assigns something instead."""
    if handler.type is not None and any(dotted(n) in _MISSING for n in ast.walk(handler.type)):
        return True
    return any(isinstance(s, ast.Assign) for s in handler.body)


def _leaves(statements: Sequence[ast.stmt]) -> bool:
    """Whether a block ends the program or the function."""
    return any(
        isinstance(s, ast.Raise | ast.Return)
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Call) and dotted(s.value.func) in _EXITS)
        for s in statements
    )


class _Use(NamedTuple):
    """What is done with a word from outside: the conversion around it, and what stands for it where it is missing."""

    kind: Kind = "unknown"
    default: ast.expr | None = None


def _uses(tree: ast.Module) -> dict[int, _Use]:
    """The use of each node, by its id; a conversion reaches through what chooses between the word and a default."""
    uses: dict[int, _Use] = {}

    def note(node: ast.expr, use: _Use) -> None:
        before = uses.get(id(node), _Use())
        kind = before.kind if before.kind != "unknown" else use.kind
        uses[id(node)] = use = _Use(kind, before.default or use.default)
        for inner, default in _chosen(node):
            note(inner, _Use(use.kind, default))
        if (
            isinstance(node, ast.Call)
            and len(node.args) == 1
            and (to := _CONVERSIONS.get(dotted(node.func))) is not None
        ):
            note(node.args[0], _Use(to, use.default))

    for node in ast.walk(tree):  # outer nodes come first
        if isinstance(node, ast.expr):
            note(node, _Use())
    return uses


def _chosen(node: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(word, default) of `word if "X" in os.environ else default`, and of `word or default`."""
    if isinstance(node, ast.IfExp) and _asks_for(node.test, node.body):
        yield node.body, node.orelse
    elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
        yield node.values[0], node.values[-1]


def _asks_for(test: ast.expr, word: ast.expr) -> bool:
    """Whether a test asks for the word itself: for its key in the environment, or for how many words there are."""
    if any(isinstance(n, ast.Subscript) and dotted(n.value) in _WORDS for n in ast.walk(word)):
        return _counts(test)
    if not any(dotted(n) in (*_TABLES, *_READS) for n in ast.walk(test)):
        return False
    asked = {ast.dump(n) for n in ast.walk(test) if isinstance(n, ast.expr)}
    return any((key := _key(n)) is not None and ast.dump(key) in asked for n in ast.walk(word))


def _key(node: ast.AST) -> ast.expr | None:
    """The key that is read from the environment; None for any other expression."""
    if isinstance(node, ast.Call) and dotted(node.func) in _READS and node.args:
        return node.args[0]
    return node.slice if isinstance(node, ast.Subscript) and dotted(node.value) in _TABLES else None


def _found(source: Source, node: ast.expr, name: str, passing: Passing, use: _Use) -> Found:
    raw: object = UNSET if use.default is None else source.scope.value(use.default)
    kind = to_kind(raw) if use.kind == "unknown" else use.kind
    if passing == "positional" and kind == "unknown":
        kind = "str"
    default: ParamValue | Unset = UNSET if raw is UNSET else fit(kind, scalar(raw))
    spelling = name if passing == "env" else name.lower()
    return Found(
        name.lower(), kind, source.place(node.lineno), passing, spelling, default=default, is_computed=raw is UNKNOWN
    )


def _is_argv(node: ast.expr, source: Source) -> bool:
    name = dotted(node)
    return name == _WORDS[0] or (
        name == _WORDS[1]
        and any(
            isinstance(n, ast.ImportFrom) and n.module == "sys" and any(a.name == "argv" for a in n.names)
            for n in source.tree.body
        )
    )


def _targets(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(id of the subscript, variable) of each assignment whose value is a word of a list, converted or not, with a default or not."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target = node.targets[0]
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
        for variable, value in pairs:
            if isinstance(variable, ast.Name) and (word := _word(value)) is not None:
                yield id(word), variable.id


def _word(node: ast.expr) -> ast.Subscript | None:
    """The subscript within conversions and defaults; None where anything else is done with it."""
    for inner, _ in _chosen(node):
        return _word(inner)
    if isinstance(node, ast.Call) and len(node.args) == 1 and dotted(node.func) in _CONVERSIONS:
        return _word(node.args[0])
    return node if isinstance(node, ast.Subscript) else None


def _opened(source: Source) -> set[int]:
    """The nodes within calls that open or parse a file, where the script reads config files at all."""
    if not imports(source.tree) & _FORMATS:
        return set()
    calls = (n for n in ast.walk(source.tree) if isinstance(n, ast.Call))
    return {id(inner) for call in calls if dotted(call.func).rpartition(".")[2] in _OPENS for inner in ast.walk(call)}
