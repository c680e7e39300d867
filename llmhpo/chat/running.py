"""/run, /resume and /pause: the study runs in a process of its own, which a closed terminal does not end."""

from __future__ import annotations

from dataclasses import replace

from llmhpo.chat.base import Session, whole_number, wrong_use
from llmhpo.store.wishes import Pause


def run(session: Session, words: list[str]) -> str:
    """Start the study, or go on with it."""
    study = session.study()
    if words:
        n = whole_number("run", words)
        study.change(f"run {n}", lambda now: replace(now, budget=replace(now.budget, n_trials=n if n else None)))
    if study.running() is not None and words:
        return f"the study runs already; it goes on to {words[0]} trials"
    context = study.context()
    if len(context.own) >= study.n_trials(context) and not context.pending:
        return f"all {study.n_trials(context)} trials have been run; /run N with a larger N goes on"
    session.say("starting ...")
    process = study.start()
    if process.poll() == 0:
        return (
            f"the run has ended: {study.log_tail().splitlines()[-1] if study.log_tail() else 'nothing was left to do'}"
        )
    return f"running, pid {process.pid}; it goes on when you leave. Its words: {study.log}"


def resume(session: Session, words: list[str]) -> str:
    """Go on."""
    if words:
        raise wrong_use("resume", words)
    return run(session, [])


def pause(session: Session, words: list[str]) -> str:
    """Ask the run to end."""
    if words not in ([], ["now"]):
        raise wrong_use("pause", words)
    how: Pause = "now" if words else "drain"
    found = session.study().pause(how)
    if how == "now":
        return f"{found.holder} ends its running trials; they are run again. /resume goes on"
    return f"{found.holder} begins no more trials, and ends when the running ones have. /resume goes on, /pause now waits for nothing"
