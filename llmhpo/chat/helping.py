"""/help and /quit."""

from __future__ import annotations

from llmhpo.chat.base import COMMANDS, Session, parse, usage


def help(session: Session, words: list[str]) -> str:
    """All commands, or one."""
    del session
    if words:
        command, _ = parse(words[0])
        does = {"reads": "Shows something, changes nothing.", "changes": "Changes the study, or writes a file.",
                "spends": "Trains, and may spend money.", "leaves": ""}[command.kind]  # fmt: skip
        return f"{usage(command)}\n  {command.help}. {does}".rstrip()
    rows = [f"  {usage(c) if len(usage(c)) < 44 else '/' + c.name + ' ...':<44}  {c.help}" for c in COMMANDS.values()]
    ends = "Other words go to the model, which asks you before it changes or spends anything.\nAlt-Enter begins a new line."
    return "\n".join([*rows, ends])


def quit(session: Session, words: list[str]) -> str:
    """Leave."""
    del session, words
    return ""
