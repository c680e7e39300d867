#!/usr/bin/env python
""" Finetuning a sequence classifier. """
import logging
import os
from dataclasses import dataclass, field
from typing import Optional

from transformers import AutoModelForSequenceClassification, HfArgumentParser, Trainer, TrainingArguments, set_seed

logger = logging.getLogger(__name__)


@dataclass
class DataTrainingArguments:
    task_name: Optional[str] = field(default=None, metadata={"help": "The name of the task to train on"})
    max_seq_length: int = field(default=128, metadata={"help": "The maximum total input sequence length."})
    pad_to_max_length: bool = field(default=True, metadata={"help": "Whether to pad all samples to `max_seq_length`."})
    max_train_samples: Optional[int] = field(default=None, metadata={"help": "For debugging."})
    mask_prob: float = field(default=0.15, metadata={"help": "Share of tokens that are masked."})


@dataclass
class ModelArguments:
    model_name_or_path: str = field(metadata={"help": "Path to pretrained model"})
    cache_dir: Optional[str] = field(default=None)
    freeze_layers: int = field(default=0, metadata={"help": "How many lower layers stay as they are"})
    classifier_dropout: float = field(default=0.1, metadata={"help": "dropout of the head"})
    pooling: str = field(default="cls", metadata={"help": "cls, mean or max", "choices": ["cls", "mean", "max"]})


def main():
    parser = HfArgumentParser((ModelArguments, DataTrainingArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)
    model = AutoModelForSequenceClassification.from_pretrained(model_args.model_name_or_path)
    trainer = Trainer(model=model, args=training_args)
    trainer.train()
    metrics = trainer.evaluate()
    logger.info("eval_accuracy = %.4f", metrics["eval_accuracy"])
