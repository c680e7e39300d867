"""A transformer of a few thousand weights that learns to add, made on the spot. Style: HfArgumentParser and Trainer."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Optional

import torch
from transformers import BertConfig, BertForSequenceClassification, HfArgumentParser, Trainer, TrainingArguments


@dataclass
class ModelArguments:
    hidden_size: int = field(default=32, metadata={"help": "width of the encoder"})
    num_layers: int = field(default=2, metadata={"help": "layers of the encoder"})
    num_heads: int = field(default=2, metadata={"help": "heads of attention; must divide the width"})
    dropout: float = field(default=0.1, metadata={"help": "of hidden units"})
    tokenizer_name: Optional[str] = field(default=None, metadata={"help": "not used"})


@dataclass
class OptimArguments:
    peak_lr: float = field(default=1e-3, metadata={"help": "peak learning rate"})
    train_batch_size: int = 16
    decay: float = field(default=0.01, metadata={"help": "weight decay, decoupled"})
    warmup_ratio: float = 0.1
    scheduler: str = field(default="linear", metadata={"help": "shape", "choices": ["linear", "cosine", "constant"]})
    max_grad_norm: float = 1.0
    max_steps: int = 40
    seed: int = 0


def make_data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 10, (n, 4), generator=generator)
    return [{"input_ids": t, "labels": int(t.sum() > 18)} for t in tokens]


def main():
    model_args, optim_args = HfArgumentParser((ModelArguments, OptimArguments)).parse_args_into_dataclasses()
    torch.manual_seed(optim_args.seed)
    config = BertConfig(
        vocab_size=10,
        max_position_embeddings=8,
        hidden_size=model_args.hidden_size,
        intermediate_size=2 * model_args.hidden_size,
        num_hidden_layers=model_args.num_layers,
        num_attention_heads=model_args.num_heads,
        hidden_dropout_prob=model_args.dropout,
    )
    arguments = TrainingArguments(
        output_dir=mkdtemp(),
        learning_rate=optim_args.peak_lr,
        per_device_train_batch_size=optim_args.train_batch_size,
        weight_decay=optim_args.decay,
        warmup_steps=optim_args.warmup_ratio,
        lr_scheduler_type=optim_args.scheduler,
        max_grad_norm=optim_args.max_grad_norm,
        max_steps=optim_args.max_steps,
        seed=optim_args.seed,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(
        BertForSequenceClassification(config),
        arguments,
        train_dataset=make_data(512, 0),
        eval_dataset=make_data(256, 1),
    )
    trainer.train()
    text = json.dumps({"eval_loss": trainer.evaluate()["eval_loss"]})
    Path(os.environ["LLMHPO_RESULT"]).write_text(text) if "LLMHPO_RESULT" in os.environ else print(text)


if __name__ == "__main__":
    main()
