"""What the model is asked: the words of the task and the space, and later the history, in prompts of a fixed size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmhpo.agents.beliefs import beliefs_form, beliefs_schema
from llmhpo.agents.consult import Question
from llmhpo.agents.reply import reply_form, reply_keys
from llmhpo.history import history_table, names_fit, space_card, summary
from llmhpo.prompts import as_data, as_line, load, rough_tokens
from llmhpo.trial import Context, Task

# The current warm start, and the one that stays for models that write a few words a second: it asks for no beliefs.
_WARMSTART, _WARMSTART_COMPACT = "warmstart.v2", "warmstart.v1"
_TASK_CHARS = 900
_TASK_TOKENS = 220
_SPACE_TOKENS = (560, 45, 120)  # at least, for each parameter, and more where names are not listed again
_PROMPT_TOKENS = 1490  # of a whole prompt, by a hard tokenizer's count
_HISTORY_TOKENS = (200, 800)  # the history gets what the rest leaves, within these
_BRIEF_TOKENS = 80


def warmstart(context: Context, n: int, *, reasons: bool) -> Question:
    """Ask for `n` zero-shot configurations from the words of the task alone, and for beliefs unless it has answered before.

    A model that is not asked for `reasons` is not asked for beliefs.
    """
    answered = any(not b.error for b in context.batches)
    if not reasons or answered or beliefs_schema(context.space) is None:
        return _question("warmstart", _WARMSTART_COMPACT, context, n, reasons, {})
    extra = {"beliefs": beliefs_form(context.space)}
    return replace(_question("warmstart", _WARMSTART, context, n, reasons, extra), beliefs=True)


def propose(
    context: Context, n: int, *, reasons: bool, sensitivities: Mapping[str, float], brief: bool = False
) -> Question:
    """Ask for `n` configurations that follow from the trials so far; a `brief` question shows the very best of them alone."""
    extra = {"summary": summary(context), "history": ""}
    bare = _question("propose", "propose.v1", context, n, reasons, extra)
    low, high = _HISTORY_TOKENS
    room = min(high, max(low, _PROMPT_TOKENS - rough_tokens(bare.system) - rough_tokens(bare.user)))
    room, sensitivities = (_BRIEF_TOKENS, {}) if brief else (room, sensitivities)
    extra["history"] = history_table(context, max_tokens=room, sensitivities=sensitivities)
    return _question("propose", "propose.v1", context, n, reasons, extra)


def _question(kind: str, name: str, context: Context, n: int, reasons: bool, extra: Mapping[str, str]) -> Question:
    prompt = load(name)
    least, each, unrepeated = _SPACE_TOKENS
    least += 0 if names_fit(context.space.names) else unrepeated
    user = prompt.render(
        task=as_data(context.task.text, _TASK_CHARS, _TASK_TOKENS) or "not described",
        goal=goal(context.task),
        space=space_card(context.space, max(least, each * len(context.space))),
        n=n,
        keys=reply_keys(context.space, reasons=reasons),
        form=reply_form(context.space, reasons=reasons),
        **extra,
    )
    return Question(kind, prompt, load("system.v1").render(), user, n, reasons)


def goal(task: Task) -> str:
    """What is to be achieved, in one line: direction, metric and the limit on time."""
    limit = f"; a trial is cut after {task.timeout_s:g} s" if task.timeout_s else ""
    return f"{task.direction} {as_line(task.metric, 60, 20)}{limit}"
