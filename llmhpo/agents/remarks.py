"""What the person has said while the study runs, for the model to read, and for the choice of what is tried next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmhpo.columns import ideas
from llmhpo.history import show_value
from llmhpo.prompts import as_line, load, rough_tokens
from llmhpo.trial import Context, Proposal
from llmhpo.view import narrowed, view_of

_MOST_TOKENS = 260  # of all remarks; the latest notes go first
_NOTE_CHARS, _NOTE_TOKENS = 300, 90
_CHOICES = 8


def with_remarks(prompt: str, context: Context) -> str:
    """A prompt with what the person has said at its end; as it is where they have said nothing."""
    lines = [_limit_line(context, name) for name in context.steering.limits if name in context.space]
    left = _MOST_TOKENS - sum(map(rough_tokens, lines))
    notes: list[str] = []
    for note in reversed(context.steering.notes):
        line = f"- they say: {as_line(note.text, _NOTE_CHARS, _NOTE_TOKENS)}"
        left -= rough_tokens(line)
        if left < 0 and notes:
            break
        notes.insert(0, line)
    if not lines and not notes:
        return prompt
    return f"{prompt}\n\n{load('remarks.v1').render(remarks=chr(10).join([*lines, *notes]))}"


def _limit_line(context: Context, name: str) -> str:
    param = narrowed(context.space[name], context.steering.limits[name])
    shown = as_line(name, 60, 20)
    if param.choices:
        values = [show_value(c) for c in param.choices[:_CHOICES]]
        more = f" and {len(param.choices) - _CHOICES} more" if len(param.choices) > _CHOICES else ""
        return f"- limit: {shown} only {', '.join(values)}{more}"
    low, high = show_value(param._low), show_value(param._high)
    return f"- limit: {shown} = {low}" if low == high else f"- limit: {shown} from {low} to {high}"


def wanted_ideas(context: Context) -> tuple[Proposal, ...]:
    """The model's proposals that wait to be tried and that the person still wants: within the limits, made after the last note."""
    waiting, steering = ideas(context), context.steering
    if steering.last_note is not None:
        heard = {id(p) for batch in context.batches[steering.last_note.after :] for p in batch.proposals}
        waiting = tuple(p for p in waiting if id(p) in heard)
    if not steering.limits and not context.space.late:
        return waiting
    view = view_of(context)
    whole: Sequence[Proposal] = [replace(p, params=context.space.complete(p.params)) for p in waiting]
    return tuple(p for p in whole if view.allows(p.params))


def is_unheard(context: Context) -> bool:
    """Whether the person has said something that the model was not asked about yet."""
    note = context.steering.last_note
    return note is not None and note.after >= len(context.batches)
