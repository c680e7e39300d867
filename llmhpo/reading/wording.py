"""What a person's own words say of a study outright: metric and direction, trials, time and money. Nothing is inferred from them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from llmhpo.reading.metrics import is_metric

_GOAL = re.compile(
    r"\b(minimi[sz]e|maximi[sz]e)\b(?: the| its| our| my)? [\"'`]?([A-Za-z][\w@/.-]*[\w])[\"'`]?(?: (loss|acc\w*|error|score|auc|f1|rmse|mae|mse|reward|return|perplexity)\b)?",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\b(not|never|don't|dont|n't|instead of|rather than|without|whether|or)\W+(\w+\W+)?$", re.IGNORECASE
)
_TRIALS = re.compile(r"\b(\d{1,6}) (?:trials|runs|trainings|configurations)\b", re.IGNORECASE)
_TIME = re.compile(
    r"\b(\d{1,6}(?:\.\d+)?) ?(s|secs?|seconds?|m|mins?|minutes?|h|hours?) (?:for |per |an? |each |every )+(?:one )?(?:trial|run|training)\b",
    re.IGNORECASE,
)
_MONEY = re.compile(r"(?:\$|\bUSD )(\d{1,6}(?:\.\d+)?)\b|\b(\d{1,6}(?:\.\d+)?) ?(?:dollars?|usd)\b", re.IGNORECASE)
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Said:
    """What the words say; None for what they do not. Each comes with the words themselves."""

    metric: tuple[str, str] | None = None
    direction: tuple[Literal["minimize", "maximize"], str] | None = None
    n_trials: tuple[int, str] | None = None
    timeout_s: tuple[float, str] | None = None
    max_usd: tuple[float, str] | None = None


def read_words(words: str) -> Said:
    """What is said outright, and once: "minimize val_loss", "50 trials", "10 minutes a trial", "$5". What is said twice, and differs, is left open."""
    goals = [m for m in _GOAL.finditer(words) if not _DENIED.search(words[: m.start()])]
    metric = direction = None
    if len(goals) == 1:
        (goal,) = goals
        name = f"{goal[2]} {goal[3]}" if goal[3] else goal[2]
        if is_metric(name):  # "minimize overfitting" names none
            metric, direction = (name, goal[0]), (_sense(goal[1]), goal[0])
    trials, time, money = _once(_TRIALS, words), _once(_TIME, words), _once(_MONEY, words)
    return Said(
        metric,
        direction,
        None if trials is None or int(trials[1]) < 1 else (int(trials[1]), trials[0]),
        None if time is None or float(time[1]) <= 0 else (float(time[1]) * _SECONDS[time[2][0].lower()], time[0]),
        None if money is None else (float(money[1] or money[2]), money[0]),
    )


def _sense(verb: str) -> Literal["minimize", "maximize"]:
    return "minimize" if verb.lower().startswith("min") else "maximize"


def _once(pattern: re.Pattern[str], words: str) -> re.Match[str] | None:
    found = list(pattern.finditer(words))
    return found[0] if len(found) == 1 else None
