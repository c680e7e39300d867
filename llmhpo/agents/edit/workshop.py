"""Where edits are made: a reply's candidates are applied to the code of a revision, checked, and kept as revisions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmhpo.code.edit import EditError, parse_edit
from llmhpo.code.lineage import Lineage
from llmhpo.code.patch import apply_edit
from llmhpo.code.regions import Editable, Region
from llmhpo.code.syntax import ast_digest, is_python
from llmhpo.errors import ConfigError, SpaceError
from llmhpo.param import Param
from llmhpo.reading.draws import draws_in_source, holds
from llmhpo.revision import Origin, Revision
from llmhpo.space import SearchSpace
from llmhpo.trial import Context

_HEADING = re.compile(r"[\s#>*-]*EDIT\b[ *:#]*\d+\b.{0,80}", re.IGNORECASE)
_OPENED, _CLOSED = re.compile(r"<{5,9} ?(SEARCH|REWRITE)\s*"), re.compile(r">{5,9} ?(REPLACE|REWRITE)\s*")


def split_candidates(reply: str) -> list[str]:
    """The edits of a reply: what stands under each heading "EDIT 1", or all of it where there is none."""
    parts: list[list[str]] = [[]]
    inside = False
    for line in reply.replace("\r\n", "\n").split("\n"):
        if not inside and _HEADING.fullmatch(line):
            parts.append([])
            continue
        inside = (inside or bool(_OPENED.fullmatch(line))) and not _CLOSED.fullmatch(line)
        parts[-1].append(line)
    return ["\n".join(part) for part in (parts[1:] or parts)]


@dataclass(frozen=True, slots=True)
class Workshop:
    """The study's repository, its `baseline` and what may change of it; an edit may add and remove `max_lines` lines.

    `left_out` are paths of the tree that are no code, as the scorer and the data: whatever patterns fit them, no edit makes them.
    """

    lineage: Lineage
    editable: Editable
    baseline: str
    max_lines: int
    left_out: tuple[str, ...] = ()

    def texts(self, revision: Revision) -> list[tuple[Region, str]]:
        """The regions of a revision as they stand, none without text."""
        return self.editable.texts(self.lineage.files(revision.id))

    def digest(self, files: Mapping[str, str]) -> str:
        """Of what may change: equal for programs that do the same."""
        return ast_digest(files, self.editable.paths(files))

    def make(
        self, context: Context, parent: Revision, code: str, text: str, intent: Origin, beside: Sequence[Revision] = ()
    ) -> Revision | list[str]:
        """The revision that a candidate of a reply makes of `parent`, kept; or why it is not taken, one line a reason.

        `code` names the parent as proposals do. What equals a known revision, or one made `beside` it, but for comments and
        layout is not taken.
        """
        others = (*context.revisions, *beside)
        edit = parse_edit(text)
        if isinstance(edit, EditError):
            return list(edit.reasons)
        files = self.lineage.files(parent.id)
        space, there = context.space_of(code), {*self.lineage.blobs(parent.id), *self.left_out}
        changed = apply_edit(files, self.editable, edit, space=space, taken=there, max_lines=self.max_lines)
        if isinstance(changed, EditError):
            return list(changed.reasons)
        drawn = _drawn(changed, space, edit.hyperparameters)
        if isinstance(drawn, EditError):
            return list(drawn.reasons)
        declared = (*edit.hyperparameters, *drawn)
        if taken := _taken_names(others, declared):
            return taken
        digest = self.digest({**files, **changed})
        assert context.baseline is not None
        for known in (context.baseline, *others):
            if known.digest == digest:
                return [f"it is the same program as version {known.id[:8]}, comments and layout aside"]
        id_ = self.lineage.commit(parent.id, changed, note=edit.note)
        return Revision(id_, parent.id, declared, edit.note, digest, intent)


def _drawn(changed: Mapping[str, str], space: SearchSpace, declared: Sequence[Param]) -> tuple[Param, ...] | EditError:
    """The parameters that the new code draws (`llmhpo.choose(...)` and the like) and nobody has declared; or what is wrong."""
    known = {p.name: p for p in (*space.params, *declared)}
    found: dict[str, Param] = {}
    reasons = []
    for path, text in changed.items():
        try:
            params = draws_in_source(text, path) if is_python(path) else []
        except (ConfigError, SpaceError) as error:
            reasons.append(str(error))
            continue
        for param in params:
            there = known.setdefault(param.name, param)
            if there is param:
                found[param.name] = param
            elif not holds(param, there):
                reasons.append(
                    f"{path}: {param.name!r} is drawn as {param.describe_range()}, but it is tuned as {there.describe_range()}; "
                    "draw it from that range, or take another name"
                )
    return EditError(tuple(reasons[:10])) if reasons else tuple(found.values())


def _taken_names(others: Sequence[Revision], declared: Sequence[Param]) -> list[str]:
    """A name means one parameter throughout a study: the storage has one distribution for it."""
    known = {p.name: p for revision in others for p in revision.hyperparameters}
    return [
        f"another version declares the hyperparameter {p.name!r} with another range; take that one, or another name"
        for p in declared
        if p.name in known and known[p.name].distribution != p.distribution
    ]
