"""What Hydra finds when it looks for plugins. It imports this at the start of every application, so it does as good as nothing."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.llmhpo_sweeper._config import SweeperConf


class LLMHPOSweeper(Sweeper):  # type: ignore[misc]
    """Chooses the configurations that a multirun launches; `settings` are the keys of `SweeperConf`."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Called by Hydra with the overrides of the command line. Raises: CompactHydraException, which names the remedy."""
        from hydra_plugins.llmhpo_sweeper._sweep import sweep
        from llmhpo.errors import LLMHPOError

        try:
            return sweep(self, arguments)
        except LLMHPOError as error:
            raise CompactHydraException(f"hydra.sweeper: {error}") from None

    def check(self, batch: list[list[str]]) -> None:
        """Whether Hydra can compose these jobs. Raises: CompactHydraException."""
        self.validate_batch_is_legal(batch)


ConfigStore.instance().store(group="hydra/sweeper", name="llmhpo", node=SweeperConf, provider="llmhpo")
