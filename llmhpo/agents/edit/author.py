"""One consultation on an edit: a request for several candidates, at most one repair turn, each good one kept as a revision."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llmhpo.agents.consult import Consultant
from llmhpo.agents.conversation import Conversation, shares
from llmhpo.agents.edit.inherit import inherited
from llmhpo.agents.edit.options import EditOptions
from llmhpo.agents.edit.request import EditRequest, edit_request
from llmhpo.agents.edit.tree import Commission, Node, seed_number
from llmhpo.agents.edit.workshop import Workshop, split_candidates
from llmhpo.agents.reply import without_thinking
from llmhpo.agents.team import Team
from llmhpo.errors import BudgetError, LLMError, LLMRequestError
from llmhpo.prompts import as_line, escape, load
from llmhpo.revision import Revision
from llmhpo.trial import Batch, Context, Proposal, Provenance

_MOST_PROBLEMS = 8
EDIT = "edit"  # the kind of the consultation, and the source of a revision's first trial


class Author:
    """Has a model write edits, within its caps and deadline. It keeps no state of a study but its repository."""

    def __init__(self, consultant: Consultant | Team, workshop: Workshop, options: EditOptions) -> None:
        self.consultant, self.workshop, self.options = consultant, workshop, options

    @property
    def candidates(self) -> int:
        """How many edits one request asks for."""
        return 1 if self.consultant.llm.compact else self.options.candidates

    def consult(self, context: Context, nodes: Sequence[Node], task: Commission) -> Batch:
        """Ask for edits. Whatever the model does comes back as a `Batch`, never as an exception."""
        start = time.monotonic()
        request = edit_request(
            context,
            nodes,
            task,
            self.workshop.texts(task.parent.revision),
            self.candidates,
            descriptors=self.options.descriptors,
            compact=self.consultant.llm.compact,
        )
        conversation = self.consultant.converse(context, request.system, request.user)
        draft = _Draft(context, task, self.workshop, request, conversation)
        error, fatal = "", False
        try:
            draft.ask(request.n)
            if draft.problems and not draft.refused and 2 * len(draft.found) <= request.n:
                draft.repair()
        except LLMError as e:
            error, fatal = str(e), isinstance(e, LLMRequestError | BudgetError)
        return Batch(
            kind=EDIT,
            at=len(context.trials),
            asked=request.n,
            proposals=draft.charged(),
            usage=conversation.usage,
            problems=tuple(draft.problems),
            error=error,
            fatal=fatal,
            seconds=time.monotonic() - start,
            revisions=tuple(revision for revision, _ in draft.found),
            code=task.parent.revision.id,
        )


@dataclass(slots=True)
class _Draft:
    """The turns of one consultation, and the revisions they have given so far."""

    context: Context
    task: Commission
    workshop: Workshop
    request: EditRequest
    conversation: Conversation
    problems: list[str] = field(default_factory=list)
    found: list[tuple[Revision, Proposal]] = field(default_factory=list)
    refused: bool = False

    def ask(self, n: int) -> None:
        """One turn: a request for `n` edits, and what its reply is good for."""
        number = self.conversation.number
        completion = self.conversation.ask(self.request.max_tokens)
        if completion.finish == "refusal":
            self.refused = True
            self.problems.append("the model refused to answer")
            return
        provenance = Provenance(completion.model, self.request.prompt.name, self.request.prompt.hash, number)
        candidates = split_candidates(without_thinking(completion.text))
        for i, text in enumerate(candidates[:n], 1):
            self._take(i, text, provenance)
        if len(candidates) > n:
            self.problems.append(f"{len(candidates) - n} edits more than were asked for are left out")
        if completion.finish == "length":
            self.problems.append(f"the reply was cut at {completion.usage.output_tokens} tokens")

    def _take(self, i: int, text: str, provenance: Provenance) -> None:
        parent = self.task.parent
        beside = [revision for revision, _ in self.found]
        made = self.workshop.make(self.context, parent.revision, parent.code, text, self.task.intent, beside)
        if isinstance(made, list):
            self._reject(i, made)
            return
        trial = parent.best or parent.trials[0]
        space = self.context.space_of(parent.code).extended(made.hyperparameters)
        params = inherited(trial.params, space)
        assert params is not None, "a child's space holds its parent's"
        proposal = Proposal(params, EDIT, made.note, provenance, made.id, seed_number(trial))
        self.found.append((made, proposal))

    def _reject(self, i: int, reasons: Sequence[str]) -> None:
        room = max(0, _MOST_PROBLEMS - len(self.problems))
        self.problems.extend(f"edit {i}: {as_line(escape(reason), 300)}" for reason in reasons[:room])

    def repair(self) -> None:
        """The second and last turn: why edits were rejected, and a request for them once more."""
        missing = self.request.n - len(self.found)
        problems = "\n".join(f"- {p}" for p in self.problems)
        self.conversation.say(load("edit-repair.v1").render(problems=problems, n=missing))
        try:
            self.ask(missing)
        except LLMError as e:
            self.problems.append(f"the repair turn failed: {e}")

    def charged(self) -> tuple[Proposal, ...]:
        """The first trial of each revision that was made, each with its share of the bill."""
        tokens, usd = shares(self.conversation.usage, self.found)
        return tuple(
            replace(p, provenance=replace(p.provenance, tokens=tokens, usd=usd))
            for _, p in self.found
            if p.provenance is not None
        )
