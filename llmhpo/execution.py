"""Where the trials of a run go: the executor that a `RunConfig` describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from llmhpo.agents.edit.workshop import Workshop
from llmhpo.code.listing import plain_path
from llmhpo.config import RunConfig
from llmhpo.errors import ConfigError
from llmhpo.executors.base import Executor, Objective
from llmhpo.executors.cluster import make_remote
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.edited import CodeExecutor
from llmhpo.executors.function import FunctionExecutor, InProcessExecutor
from llmhpo.executors.limits import Limits
from llmhpo.executors.local import LocalExecutor
from llmhpo.executors.scorer import Scorer
from llmhpo.executors.workspace import Workspace
from llmhpo.sandbox.base import Sandbox
from llmhpo.sandbox.choose import choose_sandbox
from llmhpo.trial import Context
from llmhpo.tripwires import Expectations


def make_executor(
    config: RunConfig,
    objective: Objective | None,
    isolated: bool | None,
    *,
    workshop: Workshop | None = None,
    known: Callable[[], Context] | None = None,
) -> Executor:
    """Jobs run on this machine or on a cluster; a callable in this process, unless something asks for processes.

    Where code may be edited, `workshop` holds its revisions, and `known` tells what trials of the same kind have shown, against
    which a result looks suspicious or not.

    Raises: ConfigError for what does not go together, SandboxError where the sandbox that is asked for does not hold.
    """
    if config.scoring is not None and config.metric_pattern is not None:
        raise ConfigError(
            f"metric_pattern={config.metric_pattern!r} and the scorer {config.scoring.script.name!r} would both give the metric; "
            "drop one"
        )
    if workshop is not None:
        return _of_code(config, objective, workshop, known)
    if config.placement.kind != "local":
        return _remote(config, objective)
    sandbox = choose_sandbox(config.sandbox or "none")
    if objective is None:
        return _of_command(config, sandbox, read=_data(config), write=_writable(config, sandbox))
    if config.metric_pattern is not None:
        raise ConfigError(
            f"metric_pattern={config.metric_pattern!r} reads a command's output; a callable returns its metric"
        )
    is_bound = config.task.timeout_s is not None or config.gpus is not None or config.limits != Limits()
    is_bound = is_bound or sandbox is not None or config.scoring is not None
    if isolated is False and is_bound:
        raise ConfigError(
            "isolated=False runs the callable in this process, which can keep no timeout_s, gpus, limits, sandbox or scorer; "
            "drop one"
        )
    if config.n_workers > 1 or is_bound if isolated is None else isolated:
        return FunctionExecutor(
            objective,
            workers=config.n_workers,
            gpus=config.gpus,
            gpus_per_trial=config.gpus_per_trial,
            limits=config.limits,
            pass_env=config.pass_env,
            sandbox=sandbox,
            read=_data(config),
            write=_writable(config, sandbox),
            scorer=_scorer(config, sandbox),
        )
    return InProcessExecutor(objective, workers=config.n_workers)


def _of_command(
    config: RunConfig, sandbox: Sandbox | None, *, read: Sequence[Path] = (), write: Sequence[Path] = ()
) -> LocalExecutor:
    assert config.command is not None
    return LocalExecutor(
        CommandTemplate(config.command, config.space, config.cwd),
        workers=config.n_workers,
        gpus=config.gpus,
        gpus_per_trial=config.gpus_per_trial,
        limits=config.limits,
        metric_pattern=config.metric_pattern,
        pass_env=config.pass_env,
        sandbox=sandbox,
        read=read,
        write=write,
        scorer=_scorer(config, sandbox),
    )


def _scorer(config: RunConfig, sandbox: Sandbox | None) -> Scorer | None:
    return None if config.scoring is None else Scorer(config.scoring, sandbox=sandbox)


def _data(config: RunConfig) -> tuple[Path, ...]:
    return tuple(plain_path(config.cwd / name) for name in config.placement.data)


def _writable(config: RunConfig, sandbox: Sandbox | None) -> tuple[Path, ...]:
    """The folders that the user's own code writes into, made where there is a sandbox, which shows what exists."""
    for path in config.writable if sandbox is not None else ():
        path.mkdir(parents=True, exist_ok=True)
    return config.writable


def _of_code(
    config: RunConfig, objective: Objective | None, workshop: Workshop, known: Callable[[], Context] | None
) -> Executor:
    """In the sandbox, each job in a checkout of its revision, scored from outside."""
    assert config.editing is not None
    if objective is not None or config.command is None:
        raise ConfigError("editable names files of a command's code; give a command instead of a callable")
    if config.placement.kind != "local":
        raise ConfigError(
            f"executor={config.placement.kind!r} runs no edited code; leave `editable` out, or run the jobs on this machine"
        )
    sandbox = choose_sandbox(config.sandbox or "auto")
    inner = _of_command(config, sandbox)  # the workspace says of each job what it reads
    workspace = Workspace(
        workshop.lineage,
        config.editing.root,
        workshop.baseline,
        workshop.editable,
        data=_data(config),
        writable=config.writable,
        scoring=config.scoring,
    )
    if known is None:
        return CodeExecutor(inner, workspace)
    return CodeExecutor(inner, workspace, expect=lambda _: Expectations.of(known()))


def _remote(config: RunConfig, objective: Objective | None) -> Executor:
    if config.scoring is not None:
        raise ConfigError(
            f"the scorer {config.scoring.script.name!r} needs jobs on this machine, and executor={config.placement.kind!r} runs "
            "them elsewhere; drop one of the two"
        )
    if config.sandbox not in (None, "none"):
        raise ConfigError(
            f"sandbox={config.sandbox!r} holds for jobs on this machine, and executor={config.placement.kind!r} runs them "
            "elsewhere; drop one of the two"
        )
    work = objective or CommandTemplate(config.command or (), config.space, config.cwd)
    return make_remote(
        config.placement,
        work,
        workers=config.n_workers,
        cwd=config.cwd,
        folder=config.directory,
        gpus=config.gpus,
        gpus_per_trial=config.gpus_per_trial,
        limits=config.limits,
        metric_pattern=config.metric_pattern,
        pass_env=config.pass_env,
    )
