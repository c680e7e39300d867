"""transformers' TrainingArguments: flags that a script has without declaring them, by handing the class to HfArgumentParser."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from llmhpo.param import ParamValue
from llmhpo.reading.base import Found, Place, Source, to_kind
from llmhpo.reading.values import dotted

_PARSERS = ("HfArgumentParser", "TrlParser", "H4ArgumentParser")
_CLASSES = ("TrainingArguments", "Seq2SeqTrainingArguments")
# Source: transformers 5.17, training_args.py, as in 4: what is tuned of its more than a hundred fields, and what is often set beside it.
_FIELDS: Final[dict[str, ParamValue]] = {
    "learning_rate": 5e-5, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "weight_decay": 0.0,
    "lr_scheduler_type": "linear", "warmup_steps": 0, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0, "label_smoothing_factor": 0.0, "num_train_epochs": 3.0, "seed": 42,
}  # fmt: skip


def read_trainer(source: Source) -> list[Found]:
    """The flags of TrainingArguments, or of a class of the script made from it, where such a class is handed to a parser.

    A field that a class of the script declares anew has the default that it gives there.
    """
    made = {
        n.name: n
        for n in ast.walk(source.tree)
        if isinstance(n, ast.ClassDef) and any(dotted(b).rpartition(".")[2] in _CLASSES for b in n.bases)
    }
    for call in (n for n in ast.walk(source.tree) if isinstance(n, ast.Call)):
        if dotted(call.func).rpartition(".")[2] not in _PARSERS:
            continue
        for name in _given(call):
            if name in made or name.rpartition(".")[2] in _CLASSES:
                anew = dict(_own(source, made[name])) if name in made else {}
                return [anew.get(f.name, f) for f in _fields(source.place(call.lineno))]
    return []


def _given(call: ast.Call) -> Iterator[str]:
    for arg in [*call.args, *(k.value for k in call.keywords)]:
        for node in arg.elts if isinstance(arg, ast.Tuple | ast.List) else [arg]:
            yield dotted(node)


def _fields(place: Place) -> Iterator[Found]:
    for name, default in _FIELDS.items():
        yield Found(
            name,
            to_kind(default),
            place,
            "flag",
            f"--{name}",
            default=default,
            doc="of TrainingArguments",
        )


def _own(source: Source, cls: ast.ClassDef) -> Iterator[tuple[str, Found]]:
    plain = {f.name: f for f in _fields(source.place(cls.lineno))}
    for statement in cls.body:
        if isinstance(statement, ast.AnnAssign) and (name := dotted(statement.target)) in plain:
            value = statement.value
            if isinstance(value, ast.Call):
                value = next((k.value for k in value.keywords if k.arg == "default"), None)
            default = source.scope.value(value)
            if isinstance(default, bool | int | float | str):
                yield name, replace(plain[name], default=default, where=source.place(statement.lineno))
