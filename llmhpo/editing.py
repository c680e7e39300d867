"""A study that may edit code: its baseline is snapshotted, its repository opened, its search put together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self

from llmhpo.agents.edit.author import Author
from llmhpo.agents.edit.options import EditOptions
from llmhpo.agents.edit.search import EditSearch
from llmhpo.agents.edit.workshop import Workshop
from llmhpo.agents.portfolio import Portfolio
from llmhpo.code.lineage import Lineage
from llmhpo.code.listing import plain_path
from llmhpo.code.regions import Editable
from llmhpo.comparison import LEAST_FOR_EDITS
from llmhpo.errors import ConfigError, StoreError
from llmhpo.revision import Revision
from llmhpo.scoring.base import Scoring
from llmhpo.store import Store

REPOSITORY = "code.git"  # in a study's folder
_log = logging.getLogger("llmhpo")


@dataclass(frozen=True, slots=True)
class Editing:
    """What of the code below `root` may change (see `regions`), and how edits are searched for.

    `leave_out` is no code: data, the scorer and its labels, the folder of the runs. At the end of a study an edit that leads is
    run `confirm` times against the code as it stood (0: not at all).
    """

    root: Path
    editable: tuple[str, ...]
    options: EditOptions = field(default_factory=EditOptions)
    leave_out: tuple[Path, ...] = ()
    confirm: int = LEAST_FOR_EDITS

    @classmethod
    def of(
        cls,
        editable: Sequence[str],
        settings: Mapping[str, object],
        *,
        root: Path,
        data: Sequence[Path],
        scoring: Scoring | None,
        directory: Path,
    ) -> Self | None:
        """From the keys `editable` and [edits] of a study; None where nothing may change.

        Raises: ConfigError.
        """
        if isinstance(editable, str) or not all(isinstance(spec, str) for spec in editable):
            raise ConfigError(f'editable={editable!r} is not a list; write editable = ["model.py"]')
        if not editable:
            if settings:
                raise ConfigError(f"edits={dict(settings)!r} is set, but editable names nothing that may change")
            return None
        known = {f.name for f in fields(EditOptions)} | {"confirm"}
        if unknown := [name for name in settings if name not in known]:
            raise ConfigError(f"edits.{unknown[0]} is not a setting of edits; there are: {', '.join(sorted(known))}")
        values = dict(settings)
        confirm = values.pop("confirm", LEAST_FOR_EDITS)
        if isinstance(confirm, bool) or not isinstance(confirm, int) or confirm < 0 or 0 < confirm < LEAST_FOR_EDITS:
            raise ConfigError(
                f"edits.confirm={confirm!r}: an edit is confirmed in {LEAST_FOR_EDITS} runs at least; 0 leaves it out"
            )
        if isinstance(names := values.get("descriptors"), list):
            values["descriptors"] = tuple(names)
        hidden = () if scoring is None else scoring.hidden()
        options = EditOptions(**values)  # type: ignore[arg-type]  # it checks them itself
        left_out = (*map(plain_path, data), *hidden, directory)
        _check_code(root, editable, left_out)
        return cls(root, tuple(editable), options, left_out, confirm)

    def lineage(self, directory: Path) -> Lineage:
        """The repository of the study whose folder is `directory`."""
        return Lineage(directory / REPOSITORY)

    def begin(self, store: Store, directory: Path) -> Workshop:
        """Commit the baseline, at a study's first session, and check what may change against it.

        The code that a study began with stays its baseline; a warning says so where the user's tree is another by now.

        Raises: ConfigError for what `editable` names and the code does not have; StoreError.
        """
        lineage = self.lineage(directory)
        id_ = lineage.baseline(self.root, leave_out=self.leave_out)
        workshop = self.workshop(directory, id_)
        known = store.begin_edits(
            Revision(id_, note="the code as it stood", digest=workshop.digest(lineage.files(id_)))
        )
        if known.id != id_:
            raise StoreError(
                f"{str(lineage.directory)!r} does not hold the code that study {store.study_name!r} began with; bring back the "
                "folder, or give another study_name"
            )
        if other := lineage.changed(known.id, self.root):
            _log.warning(
                "study %r edits the code as it stood when it began; %r has changed since, which counts for nothing here: "
                "give another study_name to begin with the code as it stands now",
                store.study_name,
                other[0],
            )
        return workshop

    def workshop(self, directory: Path, baseline: str) -> Workshop:
        """The repository of a study that has begun, and what may change.

        Raises: ConfigError, StoreError.
        """
        lineage = self.lineage(directory)
        editable = Editable.of(self.editable, lineage.files(baseline))
        paths = [path for path in self.leave_out if path.is_relative_to(self.root) and path != self.root]
        left_out = tuple(path.relative_to(self.root).as_posix() for path in paths)
        return Workshop(lineage, editable, baseline, self.options.max_lines, left_out)

    def search(self, portfolio: Portfolio, workshop: Workshop) -> EditSearch:
        """What chooses the trials; without a model nobody writes edits, and the study is one of configurations."""
        consultant = portfolio.consultant
        author = None if consultant is None else Author(consultant, workshop, self.options)
        return EditSearch(portfolio, self.options, author)


def _check_code(root: Path, editable: Sequence[str], left_out: Sequence[Path]) -> None:
    """Raises: ConfigError where `editable` names what is no code."""
    for spec in editable:
        place = root / spec.partition("#")[0]
        if any(path != root and place.is_relative_to(path) for path in left_out):
            raise ConfigError(
                f"editable {spec!r} is the scorer, a file of a split, `data` or the study's own folder, which nobody may edit; leave it out"
            )
