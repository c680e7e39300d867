"""Where the trials of a run go: the executor that a `RunConfig` describes."""

from __future__ import annotations

from llmhpo.config import RunConfig
from llmhpo.errors import ConfigError
from llmhpo.executors.base import Executor, Objective
from llmhpo.executors.cluster import make_remote
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.function import FunctionExecutor, InProcessExecutor
from llmhpo.executors.limits import Limits
from llmhpo.executors.local import LocalExecutor
from llmhpo.sandbox.choose import choose_sandbox


def make_executor(config: RunConfig, objective: Objective | None, isolated: bool | None) -> Executor:
    """Jobs run on this machine or on a cluster; a callable in this process, unless something asks for processes.

    Raises: ConfigError for what does not go together, SandboxError where the sandbox that is asked for does not hold.
    """
    if config.placement.kind != "local":
        return _remote(config, objective)
    sandbox = choose_sandbox(config.sandbox or "none")
    data = [config.cwd / name for name in config.placement.data]
    if objective is None:
        assert config.command is not None
        template = CommandTemplate(config.command, config.space, config.cwd)
        return LocalExecutor(
            template,
            workers=config.n_workers,
            gpus=config.gpus,
            gpus_per_trial=config.gpus_per_trial,
            limits=config.limits,
            metric_pattern=config.metric_pattern,
            pass_env=config.pass_env,
            sandbox=sandbox,
            read=data,
        )
    if config.metric_pattern is not None:
        raise ConfigError(
            f"metric_pattern={config.metric_pattern!r} reads a command's output; a callable returns its metric"
        )
    is_bound = (
        config.task.timeout_s is not None or config.gpus is not None or config.limits != Limits() or sandbox is not None
    )
    if isolated is False and is_bound:
        raise ConfigError(
            "isolated=False runs the callable in this process, which can keep no timeout_s, gpus, limits or sandbox; drop one"
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
            read=data,
        )
    return InProcessExecutor(objective, workers=config.n_workers)


def _remote(config: RunConfig, objective: Objective | None) -> Executor:
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
        metric_pattern=config.metric_pattern,
        pass_env=config.pass_env,
    )
