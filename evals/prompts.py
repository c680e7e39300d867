"""The prompt lab: two versions of a template put to one model about the same studies, and what is left after the noise.

    python -m evals prompts --versions propose.v1,propose.v2 --llm smollm2 --out /tmp/lab

For each task and seed both versions are asked about one history: the first `--trials` trials of llmhpo without a model (none
for a warm start). What counts is the incumbent's regret after the batch has been tried, 0 at the best configuration and 1 at
the median: paired by task and seed, averaged over seeds, with a bootstrap over tasks and Wilcoxon's test. A version is
adopted where the interval of the difference lies below 0, and kept out otherwise. `--llm` takes any spec of a model: a hosted
one, smollm2, `scripted:FILE` for a cassette that `--record FILE` wrote. Pairs that are in `--out` are not asked again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, wilcoxon

from evals.score import Table
from evals.tasks import Half, Task, load
from llmhpo import Usage, make_llm
from llmhpo import trial as t
from llmhpo.agents import questions
from llmhpo.agents.base import Question
from llmhpo.agents.consult import Consultant
from llmhpo.agents.outlook import outlook
from llmhpo.agents.portfolio import Portfolio
from llmhpo.errors import ConfigError
from llmhpo.llm.base import LLM
from llmhpo.prompts import load as load_prompt
from llmhpo.usage import Caps

_LINES = "prompts.jsonl"
_RESAMPLES = 4000
_TURNS = 2  # of one consultation, at most
_DEADLINE_S = 600.0


@dataclass(frozen=True, slots=True)
class Lab:
    """What is compared, and on what. `short`: without reasons, as small models are asked (None: as the model says)."""

    versions: tuple[str, ...]
    llm: str
    data: Path
    suite: str = "mini"
    half: Half | None = "a"
    pattern: str = "*"
    seeds: int = 2
    trials: int = 8
    batch: int = 4
    short: bool | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one version gave on one task and seed. `before` and `after` are the incumbent's regrets, `mean` that of the batch,
    what is missing of it counted as 1."""

    task: str
    seed: int
    version: str
    llm: str
    trials: int
    batch: int
    before: float
    after: float
    mean: float
    found: int
    valid: float
    repeated: int
    tokens: int
    seconds: float
    error: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What it is told apart by."""
        return self.task, self.seed, self.version, self.llm, self.trials, self.batch


# --- asking -----------------------------------------------------------------------------------------------------------


def compare_prompts(lab: Lab, out: Path, *, record: Path | None = None, show: bool = True) -> list[Answer]:
    """Ask what has not been asked yet, keep every answer in `out`, and return all of this comparison.

    Raises: ConfigError for an unknown version, versions of different kinds, a model that cannot be made.
    """
    kind = _kind(lab.versions)
    model = make_llm(lab.llm, record=record)
    if model is None:
        raise ConfigError(f"llm={lab.llm!r} is no model; name one, such as smollm2 or openai:MODEL")
    out.mkdir(parents=True, exist_ok=True)
    path = out / _LINES
    known = {a.key: a for a in _read(path)}
    answers = []
    for number, (task, seed, version) in enumerate(_plan(lab)):
        trials = 0 if kind == "warmstart" else lab.trials
        key = (task.id, seed, version, lab.llm, trials, lab.batch)
        if key not in known:
            context = _study(task, seed, trials, lab.batch, Usage(calls=_TURNS * number))
            known[key] = _ask(lab, model, task, context, seed, version)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(known[key])) + "\n")
            if show:
                a = known[key]
                print(f"{task.id} seed {seed} {version}: {a.before:.3f} -> {a.after:.3f} {a.error}", flush=True)
        answers.append(known[key])
    return answers


def _kind(versions: Sequence[str]) -> str:
    for version in versions:
        try:
            load_prompt(version)
        except FileNotFoundError:
            raise ConfigError(f"--versions: there is no template {version!r} in llmhpo/prompts") from None
    kinds = {version.split(".")[0].split("-")[0] for version in versions}
    if len(versions) < 2 or len(kinds) > 1 or not kinds <= {"warmstart", "propose"}:
        raise ConfigError(
            f"--versions {','.join(versions)}: give two or more of warmstart.* or two or more of propose.*"
        )
    return kinds.pop()


def _plan(lab: Lab) -> Iterator[tuple[Task, int, str]]:
    tasks = load(lab.data, lab.suite, half=lab.half, pattern=lab.pattern)
    for seed in range(lab.seeds):
        for task in tasks:
            for version in lab.versions:
                yield task, seed, version


def _study(task: Task, seed: int, trials: int, batch: int, spent: Usage) -> t.Context:
    """The first trials of llmhpo without a model on a task; `spent` numbers the requests that follow."""
    about = t.Task(task.words, task.metric, task.direction)
    context = t.Context(about, task.space, (), trials + batch, seed, elsewhere=spent)
    for number in range(trials):
        (proposal,) = Portfolio().suggest(context, 1)
        result = task.evaluate(dict(proposal.params))
        outcome = t.Outcome("failed") if result.value is None else t.Outcome("ok", result.value)
        evaluated = None if result.params == proposal.params else result.params
        done = t.Trial(number, proposal, outcome, evaluated)
        left = trials + batch - number - 1
        context = t.Context(about, task.space, (*context.trials, done), left, seed, elsewhere=spent)
    return context


def _ask(lab: Lab, model: LLM, task: Task, context: t.Context, seed: int, version: str) -> Answer:
    consultant = Consultant(model, caps=Caps(), deadline_s=_DEADLINE_S)
    batch = consultant.consult(context, _question(lab, model, context, version))
    values = [trial.value for trial in context.trials]
    before = min((task.stats.regret(v) for v in values), default=1.0)
    regrets = [task.stats.regret(task.evaluate(dict(p.params)).value) for p in batch.proposals]
    tally = batch.tally or t.Tally("", version)
    return Answer(
        task=task.id,
        seed=seed,
        version=version,
        llm=lab.llm,
        trials=len(context.trials),
        batch=lab.batch,
        before=before,
        after=min([before, *regrets]),
        mean=float(np.mean([*regrets, *[1.0] * (lab.batch - len(regrets))])),
        found=len(regrets),
        valid=tally.valid / max(tally.asked, tally.offered, 1),
        repeated=tally.repeated,
        tokens=batch.usage.tokens,
        seconds=round(batch.seconds, 2),
        error=batch.error,
    )


def _question(lab: Lab, model: LLM, context: t.Context, version: str) -> Question:
    reasons = not (model.compact if lab.short is None else lab.short)
    if version.startswith("warmstart"):
        asked = questions.Templates(warmstart=version, short_warmstart=version)
        return questions.warmstart(context, lab.batch, reasons=reasons, templates=asked)
    asked = questions.Templates(propose=version, short_propose=version)
    return questions.propose(context, lab.batch, reasons=reasons, view=outlook(context), templates=asked)


def _read(path: Path) -> list[Answer]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Answer(**json.loads(line)) for line in lines]


# --- comparing --------------------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What the figures say of `version` against `old`: mean difference of regret after the batch, negative is better.

    `low` and `high` are the 95 % bootstrap interval over tasks, `p` is that of Wilcoxon's signed-rank test (1 where nothing
    differs).
    """

    version: str
    old: str
    difference: float
    low: float
    high: float
    p: float
    tasks: int
    seeds: int

    @property
    def word(self) -> str:
        """ "adopt" where the interval lies below 0, else "keep" the old one."""
        return "adopt" if self.high < 0.0 else "keep"

    def __str__(self) -> str:
        """In a line."""
        size = f"{self.tasks} tasks x {self.seeds} seeds"
        interval = f"{self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}], Wilcoxon p = {self.p:.2f}, {size}"
        name = self.version if self.word == "adopt" else self.old
        why = "better" if self.high < 0 else "worse" if self.low > 0 else "no difference shown"
        return f"{self.word} {name}: {self.version} - {self.old} = {interval} ({why})"


def verdict(answers: Sequence[Answer], old: str, version: str) -> Verdict:
    """Compare one version with another on the tasks and seeds that both have answered."""
    by_version = {v: {(a.task, a.seed): a.after for a in answers if a.version == v} for v in (old, version)}
    pairs = sorted(by_version[old].keys() & by_version[version].keys())
    tasks = sorted({task for task, _ in pairs})
    differences = np.array(
        [np.mean([by_version[version][p] - by_version[old][p] for p in pairs if p[0] == task]) for task in tasks]
    )
    low, high, p = 0.0, 0.0, 1.0
    if len(tasks) < 2:
        low, high = -np.inf, np.inf
    elif np.any(differences != 0.0):
        p = float(wilcoxon(differences).pvalue)
        interval = bootstrap(
            (differences,), np.mean, n_resamples=_RESAMPLES, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    seeds = len({seed for _, seed in pairs})
    return Verdict(version, old, float(differences.mean()), low, high, p, len(tasks), seeds)


def prompt_table(answers: Sequence[Answer]) -> Table:
    """One row a version: means over tasks and seeds."""
    head = ["template", "regret before", "after", "of the batch", "valid", "repeats", "tokens", "seconds", "no reply"]
    rows = []
    for version in dict.fromkeys(a.version for a in answers):
        of = [a for a in answers if a.version == version]
        means = [float(np.mean([getattr(a, n) for a in of])) for n in ("before", "after", "mean", "valid")]
        repeats = sum(a.repeated for a in of) / max(1, sum(a.found + a.repeated for a in of))
        tokens, seconds = (float(np.mean([getattr(a, n) for a in of])) for n in ("tokens", "seconds"))
        shown = [f"{m:.3f}" for m in means[:3]] + [
            f"{means[3]:.0%}",
            f"{repeats:.0%}",
            f"{tokens:.0f}",
            f"{seconds:.1f}",
        ]
        rows.append([version, *shown, str(sum(bool(a.error) for a in of))])
    return [head, *rows]
