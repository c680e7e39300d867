"""Make what the repository holds of the benchmark data: the mini set (<= 8 MB), and the reference of the real tasks.

    python -m evals.make_mini --data ../shared/data          # evals/mini
    python -m evals.make_mini --data ../shared/data --real   # evals/tasks/real_stats.json, about ten minutes

ImageNet and MNLI stay out: their licence (CC BY-SA 4.0) asks that derived files carry it too.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from evals.arms import make_arm
from evals.tasks import MINI, data_folder, load
from evals.tasks.base import Task

TASKS = (
    "fcnet/naval_propulsion",
    "hpobench_mlp/car",
    "nb201/cifar10",
    "nbgraph/cora",
    "hpob/5859_9977",
    "hpob/5965_3903",
    "hpob/5971_10093",
    "hpob/5527_10101",
    "lcbench_pool/kr_vs_kp",
    "xgb_cts/australian",
    "taskset/imdb_patch32_IRNN64_relu_avg_bs128",
    "scan_llm/bin_0",
    "scan_vlm/bs512",
    "yahpo_rbv2_rpart/32",
    "real/concrete",
)
_LIMIT_MB = 8.0
# licence table rows by what they begin with
_LICENCE_ROWS = ("grid/", "pool/", "curve/taskset", "curve/scan", "yahpo/{", "real/{")
_STATS = Path(__file__).parent / "tasks" / "real_stats.json"
_RANDOM, _TPE = 300, 100


def make_mini(data: Path, out: Path) -> float:
    """Copy the chosen tasks with their descriptions, replies and licences. Returns megabytes.

    Raises: ValueError where they are too many.
    """
    records = {r["id"]: r for r in json.loads((data / "tasks.json").read_text())}
    chosen = [records[id_] for id_ in TASKS]
    spaces = json.loads((data / "spaces.json").read_text())
    if out.exists():
        shutil.rmtree(out)
    for record in chosen:
        for name in (record["file"], record.get("encoding")):
            if name:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(data / name, out / name)
    _write(out / "tasks.json", chosen)
    _write(out / "spaces.json", {r["space"]: spaces[r["space"]] for r in chosen if "space" in r})
    for name in ("cards.jsonl", "replies.jsonl"):
        lines = [line for line in (data / name).read_text().splitlines() if json.loads(line)["id"] in TASKS]
        (out / name).write_text("\n".join(lines) + "\n")
    (out / "LICENSES.md").write_text(_licences((data.parent / "LICENSES.md").read_text()))
    megabytes = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
    if megabytes > _LIMIT_MB:
        raise ValueError(f"{out}: the mini set has {megabytes:.1f} MB, more than {_LIMIT_MB}; drop tasks")
    return megabytes


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _licences(text: str) -> str:
    head, kept = [], []
    for line in text.splitlines():
        if line.startswith("| `dev/"):
            if line.removeprefix("| `dev/").startswith(_LICENCE_ROWS):
                kept.append(line.replace("`dev/", "`", 1))
        else:
            head.append(line)
    chosen = "\n".join(f"- `{id_}`" for id_ in TASKS)
    return "\n".join(["\n".join(head).rstrip(), *kept]) + f"\n\nOf these families this folder holds only:\n\n{chosen}\n"


def real_reference(task: Task) -> dict[str, float]:
    """Best, median and the expected regret of 30 random trials, from random configurations and one run of TPE."""
    values = [
        v for p in task.space.sample(np.random.default_rng(0), _RANDOM) if (v := task.evaluate(p).value) is not None
    ]
    arm, found = make_arm("tpe", task, 0, _TPE), list(values)
    if task.default is not None:
        arm.tell(None, task.evaluate(task.default))
    for _ in range(_TPE):
        asked = arm.ask()
        result = task.evaluate(asked.params)
        arm.tell(asked, result)
        found += [] if result.value is None else [result.value]
    best, median = min(found), float(np.median(values))
    rng = np.random.default_rng(0)
    rs30 = float(np.mean([min(rng.choice(values, 30, replace=False)) for _ in range(2000)]))
    return {
        "n": len(found),
        "n_failed": _RANDOM + _TPE - len(found),
        "best": best,
        "median": median,
        "rs30": rs30,
        "rs30_norm_regret": (rs30 - best) / (median - best),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=MINI)
    parser.add_argument("--real", action="store_true", help="the reference of the real tasks instead")
    args = parser.parse_args()
    data = data_folder(args.data)
    if not args.real:
        print(f"{args.out}: {make_mini(data, args.out):.2f} MB")
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    stats: dict[str, dict[str, float]] = {}
    for task in load(data, "core", pattern="real/*"):
        stats[task.id] = real_reference(task)
        print(task.id, stats[task.id], flush=True)
    _write(_STATS, stats)


if __name__ == "__main__":
    main()
