"""One state of the code that a study may edit: data only; `lineage` keeps the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmhpo.param import Param, param_from_dict, param_to_dict

Origin = Literal["baseline", "draft", "debug", "improve"]


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit in the study's own repository.

    `id` is the full git hash, `parent` that of the revision it was made from ("" for the baseline). `hyperparameters` are
    those that this edit declared: each applies to this revision and to its descendants. `digest` is equal for programs
    that differ in comments and layout only. `source` says what the edit was meant to be.
    """

    id: str
    parent: str = ""
    hyperparameters: tuple[Param, ...] = ()
    note: str = ""
    digest: str = ""
    source: Origin = "baseline"

    def to_dict(self) -> dict[str, Any]:
        """As JSON reads it back."""
        declared = [{"name": p.name, **param_to_dict(p)} for p in self.hyperparameters]
        return {
            "id": self.id,
            "parent": self.parent,
            "hyperparameters": declared,
            "note": self.note,
            "digest": self.digest,
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Revision:
        """From what `to_dict` gave.

        Raises: SpaceError for a declared parameter that is none.
        """
        tables = [dict(table) for table in raw["hyperparameters"]]
        declared = tuple(param_from_dict(table.pop("name"), table) for table in tables)
        return cls(**{**raw, "hyperparameters": declared})
