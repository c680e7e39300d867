"""Fields of dataclasses and of pydantic's models and settings, read as flags, overrides, environment or constants."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from llmhpo.param import UNSET, ParamValue
from llmhpo.reading.annotations import Bounds, keyword, read_annotation, read_bounds, text
from llmhpo.reading.base import Found, Passing, Source, fit, scalar, scalars, to_kind
from llmhpo.reading.constants import comment_beside
from llmhpo.reading.values import UNKNOWN, dotted

_FLAGGED = ("HfArgumentParser", "TrlParser", "H4ArgumentParser")  # underscores stay, fields of all classes side by side
_DASHED = (
    "tyro.cli",
    "cli",
    "pyrallis.parse",
    "pyrallis.wrap",
    "draccus.parse",
    "draccus.wrap",
)
_NAMES = ("config", "args", "arguments", "params", "hparams", "hyperparameters", "hyperparams", "settings", "options")
_DEEPEST = 5


class _Use(NamedTuple):
    passing: Passing
    dashes: bool = False
    prefix: str = ""
    switches: bool = False  # a boolean is a flag without value
    dest: str | None = (
        None  # simple_parsing's: a flag is named by as much of its path, from the end, as tells it from the others
    )


def read_fields(source: Source) -> list[Found]:
    """Fields of the classes that hold settings: those handed to a parser, and else those named like Config or Args."""
    classes = {n.name: n for n in ast.walk(source.tree) if isinstance(n, ast.ClassDef)}
    uses: dict[str, list[_Use]] = {}
    for name, one in _uses(source, classes):
        uses.setdefault(name, []).append(one)
    nested = {t for c in classes.values() for t, _ in _children(c, classes)}
    found: list[Found] = []
    short: list[Found] = []
    for name, cls in classes.items():
        given = uses.get(name, [])
        if not given and name not in nested and _is_settings(cls, classes):
            given = [_own_use(source, cls, classes)]
        if given and given[-1].dest is None:
            found += _class_fields(source, cls, classes, given[-1], "", 0)
        for use in dict.fromkeys(u for u in given if u.dest is not None):  # one class, two places: --gen.lr, --disc.lr
            short += _class_fields(source, cls, classes, use, f"{use.dest}." if use.dest else "", 0)
    return found + _shortened(short)


def _shortened(found: list[Found]) -> list[Found]:
    """Flags by the shortest end of their dotted path that no other one has; a whole path stays, whoever ends in it."""
    ends = Counter(end for f in found for end in _ends(f.name))
    names = [next((e for e in _ends(f.name) if ends[e] == 1), f.name) for f in found]
    return [replace(f, name=name, spelling=f"--{name}") for f, name in zip(found, names, strict=True)]


def _ends(path: str) -> list[str]:
    """`c`, `b.c` and `a.b.c` of `a.b.c`."""
    parts = path.split(".")
    return [".".join(parts[at:]) for at in range(len(parts) - 1, -1, -1)]


def record_flags(
    source: Source, annotation: ast.expr | None, prefix: str, *, dashes: bool = False
) -> list[Found] | None:
    """The flags `--PREFIX.FIELD` of a parameter whose type is a dataclass or pydantic model of this file; None for any other type.

    `dashes` are tyro's: `--PREFIX.weight-decay`, and `--PREFIX.no-FIELD` beside a boolean one.
    """
    classes = {n.name: n for n in ast.walk(source.tree) if isinstance(n, ast.ClassDef)}
    cls = classes.get(dotted(annotation))
    if cls is None or cls.name in source.scope.enums or not _is_record(cls, classes):
        return None
    return _class_fields(source, cls, classes, _Use("flag", dashes=dashes), f"{prefix}.", 0)


def _uses(source: Source, classes: dict[str, ast.ClassDef]) -> Iterator[tuple[str, _Use]]:
    """Which classes are handed to which parser."""
    for call in (n for n in ast.walk(source.tree) if isinstance(n, ast.Call)):
        func = dotted(call.func)
        inside = [dotted(a) for arg in [*call.args, *(k.value for k in call.keywords)] for a in _members(arg)]
        named = [n for n in inside if n in classes]
        if func.rpartition(".")[2] in _FLAGGED:
            yield from ((n, _Use("flag")) for n in named)
        elif func == "simple_parsing.parse" or (func == "parse" and "simple_parsing" in source.text):
            yield from ((n, _Use("flag", dest="")) for n in named)
        elif func in _DASHED:
            yield from ((n, _Use("flag", dashes=func in ("tyro.cli", "cli"))) for n in named)
        elif func.endswith(".add_arguments"):
            dest = call.args[1] if len(call.args) > 1 else keyword(call, "dest")
            yield from ((n, _Use("flag", dest=text(dest, source.scope))) for n in named)
        elif getattr(call.func, "attr", "") in ("store", "structured"):
            yield from ((n, _Use("override")) for n in named)


def _members(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.Tuple | ast.List):
        return list(node.elts)
    return [node.func] if isinstance(node, ast.Call) else [node]


def _is_settings(cls: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool:
    lowered = cls.name.lower()
    bases = {dotted(b).rpartition(".")[2] for b in _lineage(cls, classes)}
    if bases & {"BaseSettings", "Tap"}:
        return True
    return _is_record(cls, classes) and lowered.endswith((*_NAMES, "cfg", "conf"))


def _is_record(cls: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool:
    bases = {dotted(b).rpartition(".")[2] for b in _lineage(cls, classes)}
    return bool(bases & {"BaseModel", "NamedTuple"}) or any("dataclass" in ast.unparse(d) for d in cls.decorator_list)


def _lineage(cls: ast.ClassDef, classes: dict[str, ast.ClassDef], depth: int = 0) -> Iterator[ast.expr]:
    for base in cls.bases:
        yield base
        if (parent := classes.get(dotted(base))) is not None and depth < _DEEPEST:
            yield from _lineage(parent, classes, depth + 1)


def _own_use(source: Source, cls: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> _Use:
    """How a class takes its values that no parser in the script is handed."""
    bases = {dotted(b).rpartition(".")[2] for b in _lineage(cls, classes)}
    if "Tap" in bases:
        return _Use("flag", switches=True)
    if "BaseSettings" not in bases:
        return _Use("constant")
    options: dict[str, object] = {}
    for statement in cls.body:
        value = getattr(statement, "value", None)
        if isinstance(statement, ast.Assign) and dotted(statement.targets[0]) == "model_config":
            if isinstance(value, ast.Call):
                options = {k.arg: source.scope.value(k.value) for k in value.keywords if k.arg}
            elif isinstance(table := source.scope.value(value), dict):
                options = table
    if options.get("cli_parse_args") is True:
        return _Use("flag")
    return _Use("env", prefix=str(options.get("env_prefix", "")))


def _children(cls: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Iterator[tuple[str, ast.AnnAssign]]:
    """(class, field) of the fields that are records themselves."""
    for statement in cls.body:
        if isinstance(statement, ast.AnnAssign) and (kind := dotted(statement.annotation)) in classes:
            yield kind, statement


def _class_fields(
    source: Source, cls: ast.ClassDef, classes: dict[str, ast.ClassDef], use: _Use, path: str, depth: int
) -> list[Found]:
    """The fields of a class and of its parents; one that is written again keeps its place and takes what is written last."""
    return list({f.name: f for f in _written_fields(source, cls, classes, use, path, depth)}.values())


def _written_fields(
    source: Source, cls: ast.ClassDef, classes: dict[str, ast.ClassDef], use: _Use, path: str, depth: int
) -> Iterator[Found]:
    if depth > _DEEPEST:
        return
    for base in reversed(cls.bases):  # the first one counts for more
        if (parent := classes.get(dotted(base))) is not None and parent is not cls:
            yield from _class_fields(source, parent, classes, use, path, depth + 1)
    children = {id(s): classes[name] for name, s in _children(cls, classes) if name not in source.scope.enums}
    for statement in cls.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if (child := children.get(id(statement))) is not None:
            yield from _class_fields(source, child, classes, use, f"{path}{statement.target.id}.", depth + 1)
        elif not dotted(getattr(statement.annotation, "value", None)).endswith("ClassVar"):
            yield _field(source, cls, statement, use, path)


class _Given(NamedTuple):
    """What stands to the right of a field."""

    raw: object = UNSET
    doc: str = ""
    bounds: Bounds = Bounds()
    choices: tuple[ParamValue, ...] = ()


def _given(source: Source, node: ast.expr | None) -> _Given:
    """The default of `= 0.1`, `field(default=..., metadata={"help": ...})`, `Field(0.1, ge=0, description=...)`."""
    scope = source.scope
    if node is None or (isinstance(node, ast.Constant) and node.value is ...):
        return _Given()
    func = dotted(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
    if isinstance(node, ast.Call) and func == "choice":  # simple_parsing's: the choices are its arguments
        raw = scope.value(keyword(node, "default"))
        return _Given(raw, choices=scalars(tuple(scope.value(a) for a in node.args)))
    if not isinstance(node, ast.Call) or func not in ("field", "Field", "HfArg", "option"):
        return _Given(scope.value(node))
    default = node.args[0] if node.args else keyword(node, "default")
    factory = keyword(node, "default_factory")
    if isinstance(factory, ast.Lambda):
        default = factory.body
    elif factory is not None:
        return _Given(() if dotted(factory) in ("list", "dict", "set", "tuple") else UNKNOWN)
    given = _given(source, default)
    metadata = scope.value(keyword(node, "metadata")) if keyword(node, "metadata") is not None else {}
    table = metadata if isinstance(metadata, dict) else {}
    doc = text(keyword(node, "description") or keyword(node, "help"), scope)
    if isinstance(table.get("help"), str):
        doc = " ".join(table["help"].split())[:300]
    return _Given(given.raw, doc, read_bounds(node, scope), scalars(table.get("choices")))


def _field(source: Source, cls: ast.ClassDef, node: ast.AnnAssign, use: _Use, path: str) -> Found:
    assert isinstance(node.target, ast.Name)
    name = node.target.id
    hint = read_annotation(node.annotation, source.scope)
    given = _given(source, node.value)
    for call in hint.calls:  # Annotated[float, Field(ge=0)]
        more = _given(source, call)
        given = _Given(more.raw if given.raw is UNSET else given.raw, given.doc or more.doc, more.bounds, given.choices)
    kind = to_kind(given.raw) if hint.kind == "unknown" else hint.kind
    if kind == "unknown" and (isinstance(node.value, ast.Call) and dotted(node.value.func).endswith("Path")):
        kind = "path"
    bare = f"{path}{name}"
    spelling = {
        "flag": f"--{bare.replace('_', '-') if use.dashes else bare}",
        "env": f"{use.prefix}{name}".upper(),
        "constant": f"{cls.name}.{name}",
    }.get(use.passing, bare)
    passing, off = use.passing, ""
    if kind == "bool" and use.dashes:  # tyro's own pair; it puts the "no" before the last part
        outer, _, last = spelling.removeprefix("--").rpartition(".")
        passing, off = "pair", f"--{outer}{'.' * bool(outer)}no-{last}"
    elif kind == "bool" and use.switches:
        passing, off = "switch", spelling if given.raw is True else ""
    return Found(
        bare, kind, source.place(node.lineno), passing, spelling, off=off, default=fit(kind, scalar(given.raw)),
        choices=hint.choices or given.choices, doc=given.doc or comment_beside(source, node), low=given.bounds.low, high=given.bounds.high,
        owner=cls.name if use.passing == "constant" else "", is_computed=given.raw is UNKNOWN,
    )  # fmt: skip
