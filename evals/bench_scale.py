"""What a study costs its controller as it grows: CPU and memory a thousand trials, idle workers, and opening it again.

    OMP_NUM_THREADS=1 python -m evals.bench_scale --trials 10000 --workers 64
    OMP_NUM_THREADS=1 python -m evals.bench_scale --trials 2000 --job-s 5 --spread 0.5        # workers as they are in earnest
    OMP_NUM_THREADS=1 python -m evals.bench_scale --trials 300 --workers 4 --jobs processes # `LocalExecutor`

Jobs that sleep in `threads` of the controller cost it next to nothing, so that its process time is the price of asking, recording
and starting; with `processes` each is a process tree under `LocalExecutor`, whose own time is the job's and not counted here.
Storage and event log lie in a folder that is removed afterwards (`--folder` keeps it). The model takes `--model-s` seconds for a
batch. A worker is idle while it has no job: workers x wall-clock time, less the time jobs took.

64 workers with jobs of 50 ms could begin 1,280 trials a second, which at 15 ms each is the work of nineteen controllers: there
the controller's own speed is what leaves workers idle. The idle share means something where jobs are longer than
workers x CPU a trial; `--job-s 5` is such a case. Jobs that last equally long all end in the same moment, and stand in line for the
controller; `--spread 0.5` lets them last from half to one and a half times as long.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import llmhpo
from evals.bench_ask import SPACE
from llmhpo.audit import replay, verify
from llmhpo.events import Consulted, Event, Finished, Launched
from llmhpo.llm.base import Completion, Request
from llmhpo.store import load_study
from llmhpo.usage import Price, Usage

NAME = "scale"
SCRIPT = """sleep {job_s}; printf '{{{{"value": {{lr}}}}}}' > "$LLMHPO_RESULT" """


@dataclass
class Window:
    """Trials from one count to the next: the controller's CPU a trial, its memory at the end, and the workers' idle share."""

    trials: int
    cpu_ms: float
    wall_ms: float
    memory_mb: float
    idle: float


@dataclass
class Figures:
    """What a run showed."""

    windows: list[Window] = field(default_factory=list)
    consultations: int = 0
    idle: float = 0.0
    resume_wall_s: float = 0.0
    resume_cpu_s: float = 0.0
    log_problems: int = 0
    other_decisions: int = 0


class SlowModel:
    """A model that takes `seconds` for a batch of random configurations, which it draws from the request's number."""

    name, compact, overhead_tokens = "slow", False, 0
    price: Price | None = Price(0.0, 0.0)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def complete(self, request: Request) -> Completion:
        time.sleep(self.seconds)
        rng = random.Random(request.number)
        drawn = SPACE.sample(_numpy(rng.randrange(2**31)), 10)
        reply = {"configurations": [{"why": "a draw", **{n: p.get(n) for n in SPACE.names}} for p in drawn]}
        return Completion(json.dumps(reply), Usage(1, 1000, 0, 500, 0.0), self.name)

    def count_tokens(self, text: str) -> int:
        return len(text) // 4

    def close(self) -> None:
        return None


def _numpy(seed: int):  # type: ignore[no-untyped-def]
    import numpy as np

    return np.random.default_rng(seed)


class Gauge:
    """Reads the controller's clocks as events pass; jobs that run in its threads tell it how long they took."""

    def __init__(self, workers: int, window: int) -> None:
        self._workers, self._window = workers, window
        self._lock = threading.Lock()
        self._busy = self._done = 0.0
        self.figures = Figures()
        self._start = self._mark()
        self._first = self._start

    def busy(self, seconds: float) -> None:
        with self._lock:
            self._busy += seconds

    def __call__(self, event: Event) -> None:
        if isinstance(event, Consulted):
            self.figures.consultations += 1
        if isinstance(event, Finished):
            self._done += 1
            if self._done % self._window == 0:
                self._close_window()

    def _mark(self) -> tuple[float, float, float]:
        with self._lock:
            return time.process_time(), time.monotonic(), self._busy

    def _close_window(self) -> None:
        now = self._mark()
        cpu, wall, busy = (b - a for a, b in zip(self._start, now, strict=True))
        self.figures.windows.append(
            Window(
                int(self._done),
                round(1e3 * cpu / self._window, 2),
                round(1e3 * wall / self._window, 2),
                round(memory_mb(), 1),
                round(1.0 - busy / (wall * self._workers), 4),
            )
        )
        _, wall, busy = (b - a for a, b in zip(self._first, now, strict=True))
        self.figures.idle = round(1.0 - busy / (wall * self._workers), 4)
        self._start = now


def memory_mb() -> float:
    """What this process has in memory, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(folder: Path, arguments: argparse.Namespace, n_trials: int, on_event: Gauge) -> None:
    """The study, from where it stands to `n_trials`."""
    model = SlowModel(arguments.model_s) if arguments.model_s > 0 else "none"

    def job(params: dict[str, object]) -> float:
        start = time.monotonic()
        u = SPACE.to_unit(params)  # type: ignore[arg-type]
        fate = random.Random(repr(u)).uniform(-1.0, 1.0)
        time.sleep(arguments.job_s * (1.0 + arguments.spread * fate))
        on_event.busy(time.monotonic() - start)
        return float((u[0] - 0.6) ** 2 + 0.3 * (u[4] - u[5]) ** 2 + 0.1 * u[2])

    def tell(event: Event) -> None:
        if isinstance(event, Finished) and arguments.jobs == "processes" and event.trial.outcome is not None:
            on_event.busy(event.trial.outcome.seconds)
        on_event(event)

    llmhpo.optimize(
        job if arguments.jobs == "threads" else ["sh", "-c", SCRIPT.format(job_s=arguments.job_s)],
        SPACE, n_trials=n_trials, n_workers=arguments.workers, llm=model, seed=0, study_name=NAME, cwd=folder,
        isolated=False if arguments.jobs == "threads" else None, progress=False, on_event=tell,
    )  # fmt: skip


def resume(folder: Path, n_trials: int) -> None:
    """In a fresh process: open the study as it stands, and stop at the first launch. Prints wall-clock and CPU seconds."""
    started = float(os.environ["LLMHPO_BENCH_START"])
    cpu = time.process_time()

    def first(event: Event) -> None:
        if isinstance(event, Launched):
            print(json.dumps([time.monotonic() - started, time.process_time() - cpu]), flush=True)
            os._exit(0)

    llmhpo.optimize(
        lambda _: 0.0, SPACE, n_trials=n_trials, llm="none", seed=0, study_name=NAME, cwd=folder, isolated=False,
        progress=False, on_event=first,
    )  # fmt: skip


def measure(arguments: argparse.Namespace, folder: Path) -> Figures:
    """All figures of one study in `folder`."""
    gauge = Gauge(arguments.workers, min(arguments.window, arguments.trials))
    run(folder, arguments, arguments.trials, gauge)
    figures = gauge.figures
    again = [sys.executable, "-m", "evals.bench_scale", "--resume", str(folder), "--trials", str(arguments.trials + 1)]
    environment = {**os.environ, "LLMHPO_BENCH_START": repr(time.monotonic())}
    told = subprocess.run(again, env=environment, capture_output=True, text=True, check=True).stdout
    figures.resume_wall_s, figures.resume_cpu_s = (round(s, 2) for s in json.loads(told))
    if arguments.audit:
        study = folder / "runs" / NAME
        log, context = study / "events.jsonl", load_study(f"sqlite:///{study / 'study.db'}", NAME)
        figures.log_problems = len(verify(log, context, NAME).problems)
        figures.other_decisions = len(replay(log).problems)
    return figures


def show(figures: Figures) -> None:
    """A table."""
    print(f"{'trials':>7s}{'CPU ms/trial':>14s}{'wall ms/trial':>15s}{'memory MB':>11s}{'idle':>8s}")
    for w in figures.windows:
        print(f"{w.trials:7d}{w.cpu_ms:14.2f}{w.wall_ms:15.2f}{w.memory_mb:11.1f}{w.idle:8.1%}")
    print(f"workers idle over all {figures.idle:.1%}; consultations of the model {figures.consultations}")
    print(
        f"resume: {figures.resume_wall_s} s from the command to the first launch, {figures.resume_cpu_s} s of it CPU after start-up"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--job-s", type=float, default=0.05, help="seconds that a job sleeps")
    parser.add_argument(
        "--spread", type=float, default=0.0, help="share by which jobs in threads last longer or shorter"
    )
    parser.add_argument(
        "--model-s", type=float, default=5.0, help="seconds that the model takes for a batch; 0: no model"
    )
    parser.add_argument("--jobs", choices=["threads", "processes"], default="threads")
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--audit", action="store_true", help="verify and replay the log afterwards")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, help="keep the study there, and go on with one that is there")
    parser.add_argument("--resume", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.resume is not None:
        resume(arguments.resume, arguments.trials)
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(arguments, arguments.folder or Path(scratch))
    print(json.dumps(asdict(figures))) if arguments.json else show(figures)


if __name__ == "__main__":
    main()
