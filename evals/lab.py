"""A lean lab: the classical engine against random search and Optuna on tabular tasks, over paired seeds.

    python -m evals.lab --data /path/to/data/dev --out /tmp/lab --half a --seeds 4
    python -m evals.lab --data /path/to/data/dev --out /tmp/lab --half b --arms classical tpe

All arms start from the same random configuration of a seed. A configuration off the table snaps to the nearest row, and
that row is what the optimizer is told. Finished runs are kept in `--out` as JSON lines and not run again (`--fresh` does).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from scipy.spatial import cKDTree

from llmhpo.param import Param, ParamValue, When
from llmhpo.space import InvalidParams, Params, SearchSpace
from llmhpo.trial import Context, Direction, Outcome, Proposal, Task, Trial

CHECKPOINTS = (10, 25, 50)


class Told(NamedTuple):
    """What a table answers: the configuration that was really evaluated, and its value (NaN: the run diverged)."""

    params: Params
    value: float


class Table:
    """One tabular task: a complete grid, or a pool of evaluated configurations."""

    def __init__(self, root: Path, record: dict[str, Any], spaces: dict[str, Any]) -> None:
        self.id: str = record["id"]
        self.family: str = record["family"]
        self.record = record
        bounds = record.get("bounds") or {}
        self._specs: list[dict[str, Any]] = [
            {**p, **bounds.get(p["name"], {})} for p in spaces[record["space"]]["params"]
        ]
        self.space = SearchSpace([_param(spec) for spec in self._specs])
        self.direction: Direction = "minimize" if record["direction"] == "min" else "maximize"
        arrays = np.load(root / record["file"])
        y = np.asarray(arrays["Y__" + record["objective"]], dtype=float)
        self._y = y if y.ndim == 1 else y.mean(axis=1)
        self._index = arrays.get("index")
        self._X = np.asarray(arrays["X"], dtype=float) if record["kind"] == "pool" else None
        if self._X is not None:
            self._tree = cKDTree(self._vectors(self._X))

    def evaluate(self, params: Params) -> Told:
        """Look a configuration up, after snapping it to the nearest row."""
        if self._X is None:
            row = 0
            for param in self.space.params:
                row = row * len(param.choices) + param.index(params[param.name])
            if self._index is not None:
                row = int(self._index[row])
            return Told(params, float(self._y[row]) if row >= 0 else math.nan)
        x = [math.nan if p.name not in params else _number(p, params[p.name]) for p in self.space.params]
        row = int(self._tree.query(self._vectors(np.array([x], dtype=float))[0])[1])
        return Told(self._row_params(row), float(self._y[row]))

    def regret(self, value: float) -> float:
        """Normalised regret: 0 at the best row, 1 at the median row; on the log scale where the task asks for it."""
        stats = self.record["stats"]
        best, median = float(stats["best"]), float(stats["median"])
        if self.record.get("log_objective"):
            best, median, value = math.log(best), math.log(median), math.log(value)
        return max(0.0, (value - best) / (median - best))

    def _row_params(self, row: int) -> Params:
        assert self._X is not None
        raw: dict[str, object] = {}
        for param, x in zip(self.space.params, self._X[row], strict=True):
            d = param.distribution
            if isinstance(d, CategoricalDistribution):
                raw[param.name] = None if math.isnan(x) else d.choices[int(x)]
            elif isinstance(d, FloatDistribution | IntDistribution):
                x = min(max(d.low if math.isnan(x) else float(x), d.low), d.high)
                raw[param.name] = round(x) if isinstance(d, IntDistribution) else x
        params = self.space.coerce(self.space.drop_inactive(raw))
        if isinstance(params, InvalidParams):
            raise TypeError(f"{self.id} row {row}: {params}")
        return params

    def _vectors(self, X: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        columns = []
        for spec, x in zip(self._specs, X.T, strict=True):
            if spec["type"] == "cat":
                columns += [np.where(x == k, 2.0, 0.0) for k in range(len(spec["choices"]))]
                continue
            low, high = float(spec["low"]), float(spec["high"])
            if spec.get("log"):
                low, high, x = math.log(low), math.log(high), np.log(np.maximum(x, low))
            columns.append(np.nan_to_num((x - low) / ((high - low) or 1.0), nan=-1.0))
        return np.column_stack(columns)


def _number(param: Param, value: ParamValue) -> float:
    return float(param.index(value)) if param.choices else float(value)  # type: ignore[arg-type]


def _param(spec: dict[str, Any]) -> Param:
    condition = spec.get("condition")
    when = (When(condition["parent"], tuple(condition["values"])),) if condition else ()
    distribution: BaseDistribution
    if "values" in spec:
        return Param(spec["name"], CategoricalDistribution(tuple(spec["values"])), when=when, ordered=True)
    if spec["type"] == "cat":
        distribution = CategoricalDistribution(tuple(spec["choices"]))
    elif spec["type"] == "int":
        distribution = IntDistribution(int(spec["low"]), int(spec["high"]), log=bool(spec.get("log")))
    else:
        distribution = FloatDistribution(float(spec["low"]), float(spec["high"]), log=bool(spec.get("log")))
    return Param(spec["name"], distribution, when=when)


def load(root: Path, wanted: Sequence[str] = (), half: str | None = None, core: bool = True) -> list[Table]:
    """Grids and pools: the core ones (or the others), one half of each family, or those named."""
    records = json.loads((root / "tasks.json").read_text())
    spaces = json.loads((root / "spaces.json").read_text())
    records = [r for r in records if r["kind"] in ("grid", "pool")]
    if wanted:
        records = [r for r in records if r["id"] in wanted or r["family"] in wanted]
    else:
        records = [r for r in records if r["core"] == core]
    by_family: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_family[record["family"]].append(record)
    chosen = [
        r
        for family in by_family.values()
        for i, r in enumerate(family)
        if half is None or (i % 2 == 0) == (half == "a")
    ]
    return [Table(root, r, spaces) for r in chosen]


# --- arms -----------------------------------------------------------------------------------------------------------

Ask = Callable[[list[Told]], Params]
Arm = Callable[[Table, int], Ask]


def random_arm(table: Table, seed: int) -> Ask:
    rng = np.random.default_rng([seed, 7])
    return lambda _: table.space.sample(rng, 1)[0]


def context_of(table: Table, told: Sequence[Told], seed: int) -> Context:
    """What an agent sees after `told`."""
    trials = tuple(
        Trial(i, Proposal(t.params, "lab"), Outcome("ok", t.value) if math.isfinite(t.value) else Outcome("failed"))
        for i, t in enumerate(told)
    )
    return Context(Task(direction=table.direction), table.space, trials, seed=seed)


def classical_arm(table: Table, seed: int) -> Ask:
    from llmhpo.agents.classical import classical_proposals

    return lambda told: classical_proposals(context_of(table, told, seed), 1)[0].params


def optuna_arm(make: Callable[[int], optuna.samplers.BaseSampler]) -> Arm:
    """An Optuna sampler as a user runs it, but for ordinal choices, which it is given as integers (in its favour)."""

    def start(table: Table, seed: int) -> Ask:
        study = optuna.create_study(direction=table.direction, sampler=make(seed))
        seen = 0

        def ask(told: list[Told]) -> Params:
            nonlocal seen
            for tried, value in told[seen:]:
                ok = math.isfinite(value)
                study.add_trial(
                    optuna.trial.create_trial(
                        state=optuna.trial.TrialState.COMPLETE if ok else optuna.trial.TrialState.FAIL,
                        params={n: _to_optuna(table.space[n], v) for n, v in tried.items()},
                        distributions={n: _optuna_distribution(table.space[n]) for n in tried},
                        values=[value] if ok else None,
                    )
                )
            seen = len(told)
            trial = study.ask()
            params: Params = {}
            for param in table.space._order:
                if table.space.is_active(param, params):
                    params[param.name] = _suggest(trial, param)
            study._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL)
            return {name: params[name] for name in table.space.names if name in params}

        return ask

    return start


def _optuna_distribution(param: Param) -> BaseDistribution:
    return IntDistribution(0, len(param.choices) - 1) if param.ordered else param.distribution


def _to_optuna(param: Param, value: ParamValue) -> ParamValue:
    return param.index(value) if param.ordered else value


def _suggest(trial: optuna.Trial, param: Param) -> ParamValue:
    value = trial._suggest(param.name, _optuna_distribution(param))
    return param.choices[int(value)] if param.ordered else value


ARMS: dict[str, Arm] = {
    "classical": classical_arm,
    "random": random_arm,
    "tpe": optuna_arm(
        lambda seed: optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
    ),
    "tpe_default": optuna_arm(lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "optuna_gp": optuna_arm(lambda seed: optuna.samplers.GPSampler(seed=seed, deterministic_objective=True)),
    "cmaes": optuna_arm(lambda seed: optuna.samplers.CmaEsSampler(seed=seed)),
}


class Run(NamedTuple):
    """One arm on one task with one seed: the regret after each trial, and the median seconds of an ask."""

    regrets: list[float]
    ask_s: float


def run_one(table: Table, arm: Arm, seed: int, n_trials: int) -> Run:
    """Run `n_trials` trials from the seed's random first configuration."""
    first = table.space.sample(np.random.default_rng([seed, 1]), 1)[0]
    told = [table.evaluate(first)]
    ask = arm(table, seed)
    seconds = []
    while len(told) < n_trials:
        start = time.perf_counter()
        params = ask(told)
        seconds.append(time.perf_counter() - start)
        told.append(table.evaluate(params))
    regrets, best = [], math.inf
    for _, value in told:
        if math.isfinite(value):
            best = min(best, table.regret(value))
        regrets.append(best if math.isfinite(best) else 1.0)
    return Run(regrets, float(np.median(seconds)))


class Cache:
    """Finished runs, one JSON line each."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / "lab.jsonl"
        self._runs: dict[tuple[str, str, int], Run] = {}
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for line in self._path.read_text().splitlines() if self._path.exists() else []:
                item = json.loads(line)
                self._runs[item["arm"], item["task"], item["seed"]] = Run(item["regrets"], item["ask_s"])

    def get(self, arm: str, task: str, seed: int) -> Run | None:
        return self._runs.get((arm, task, seed))

    def put(self, arm: str, task: str, seed: int, run: Run) -> None:
        self._runs[arm, task, seed] = run
        if self._path is not None:
            with self._path.open("a") as out:
                out.write(json.dumps({"arm": arm, "task": task, "seed": seed, **run._asdict()}) + "\n")


def run_all(
    tables: Iterable[Table], arms: dict[str, Arm], seeds: int, n_trials: int, cache: Cache, fresh: Sequence[str] = ()
) -> dict[str, dict[str, list[Run]]]:
    """arm -> task -> one run a seed."""
    runs: dict[str, dict[str, list[Run]]] = {name: {} for name in arms}
    for table in tables:
        for name, arm in arms.items():
            for seed in range(seeds):
                run = None if name in fresh else cache.get(name, table.id, seed)
                if run is None or len(run.regrets) < n_trials:
                    run = run_one(table, arm, seed, n_trials)
                    cache.put(name, table.id, seed, run)
                runs[name].setdefault(table.id, []).append(run)
    return runs


def table_of(runs: dict[str, dict[str, list[Run]]], per_task: bool = False) -> str:
    """Mean normalised regret over tasks at the checkpoints, the share of the best other arm, and seconds an ask."""
    lines = [f"{'arm':28s}" + "".join(f"{f'@{k}':>8s}" for k in CHECKPOINTS) + f"{'ms/ask':>9s}{'runs':>6s}"]
    for name, tasks in runs.items():
        all_runs = [run for task in tasks.values() for run in task]
        means = [
            float(
                np.mean(
                    [np.mean([run.regrets[min(k, len(run.regrets)) - 1] for run in task]) for task in tasks.values()]
                )
            )
            for k in CHECKPOINTS
        ]
        ms = 1e3 * float(np.median([run.ask_s for run in all_runs]))
        lines.append(f"{name:28s}" + "".join(f"{m:8.3f}" for m in means) + f"{ms:9.1f}{len(all_runs):6d}")
    if per_task:
        names = list(runs)
        lines.append(
            f"\n{'task, mean regret at ' + str(CHECKPOINTS[-1]):32s}" + "".join(f"{n[:14]:>15s}" for n in names)
        )
        for task in runs[names[0]]:
            row = [
                np.mean([run.regrets[min(CHECKPOINTS[-1], len(run.regrets)) - 1] for run in runs[n][task]])
                for n in names
            ]
            lines.append(f"{task:32s}" + "".join(f"{value:15.3f}" for value in row))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tasks.json and spaces.json")
    parser.add_argument("--tasks", nargs="*", default=[], help="ids or families; all core tasks where left out")
    parser.add_argument("--others", action="store_true", help="the tasks that are not core")
    parser.add_argument(
        "--half", choices=["a", "b"], help="even (a: to tune on) or odd (b: to report) tasks of a family"
    )
    parser.add_argument("--arms", nargs="*", default=["classical", "random", "tpe", "optuna_gp"], choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--out", type=Path, help="folder to keep finished runs in")
    parser.add_argument("--fresh", nargs="*", default=[], help="arms to run again although they are kept")
    parser.add_argument("--per-task", action="store_true")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tables = load(args.data, args.tasks, args.half, core=not args.others)
    runs = run_all(tables, {n: ARMS[n] for n in args.arms}, args.seeds, args.trials, Cache(args.out), args.fresh)
    print(table_of(runs, args.per_task))


if __name__ == "__main__":
    main()
