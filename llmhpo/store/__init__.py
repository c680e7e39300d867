"""The record of a study: its trials in Optuna's storage, its event log beside them, the right to write to either."""

from llmhpo.store.record import MOST_TOGETHER, Launch, Store, batch_from_dict, load_study

__all__ = ["MOST_TOGETHER", "Launch", "Store", "batch_from_dict", "load_study"]
