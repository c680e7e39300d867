"""The record of a study: its trials in Optuna's storage, its event log beside them, the right to write to either."""

from llmhpo.store.ledger import batch_from_dict
from llmhpo.store.load import load_study
from llmhpo.store.record import MOST_TOGETHER, Launch, Store

__all__ = ["MOST_TOGETHER", "Launch", "Store", "batch_from_dict", "load_study"]
