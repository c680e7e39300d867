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
    rows = [f"  /{c.name:<7}  {c.help}" for c in COMMANDS.values()]
    ends = (
        "/help COMMAND says more. Other words go to the model, which asks you before it changes or spends anything. "
        "Alt-Enter begins a new line."
    )
    return "\n".join([*rows, ends])


def stop(session: Session, words: list[str]) -> str:
    """Leave what is under way: where there is no terminal, nothing is."""
    del session, words
    return "nothing is under way"


def quit(session: Session, words: list[str]) -> str:
    """Leave."""
    del session, words
    return ""
