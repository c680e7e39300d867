"""A study that may edit code: its baseline is snapshotted, its repository opened, its search put together."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from llmhpo.agents.edit.author import Author
from llmhpo.agents.edit.options import EditOptions
from llmhpo.agents.edit.search import EditSearch
from llmhpo.agents.edit.workshop import Workshop
from llmhpo.agents.portfolio import Portfolio
from llmhpo.lineage import Lineage
from llmhpo.regions import Editable
from llmhpo.revision import Revision
from llmhpo.store import Store

REPOSITORY = "code.git"  # in a study's folder
_log = logging.getLogger("llmhpo")


@dataclass(frozen=True, slots=True)
class Editing:
    """What of the code below `root` may change (see `regions`), and how edits are searched for.

    `leave_out` is no code: data, the scorer and its labels, the folder of the runs.
    """

    root: Path
    editable: tuple[str, ...]
    options: EditOptions = field(default_factory=EditOptions)
    leave_out: tuple[Path, ...] = ()

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
        files = lineage.files(id_)
        workshop = Workshop(lineage, Editable.of(self.editable, files), self.options.max_lines)
        known = store.begin_edits(Revision(id_, note="the code as it stood", digest=workshop.digest(files)))
        if other := lineage.changed(known.id, self.root):
            _log.warning(
                "study %r edits the code as it stood when it began; %r has changed since, which counts for nothing here: "
                "give another study_name to begin with the code as it stands now",
                store.study_name,
                other[0],
            )
        return workshop

    def search(self, portfolio: Portfolio, workshop: Workshop) -> EditSearch:
        """What chooses the trials; without a model nobody writes edits, and the study is one of configurations."""
        consultant = portfolio.consultant
        author = None if consultant is None else Author(consultant, workshop, self.options)
        return EditSearch(portfolio, self.options, author)
