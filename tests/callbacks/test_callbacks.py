"""Every framework's callback in a real, small training: what it reports, what it hands in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmhpo.callbacks.monitor import HandIn, Monitor
from llmhpo.errors import ConfigError

os.environ.setdefault("KERAS_BACKEND", "torch")
rng = np.random.default_rng(0)
X = rng.normal(size=(64, 4)).astype("float32")
Y = (X @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.1 * rng.normal(size=64)).astype("float32")
Seen = tuple[list[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Seen]:
    """What a job has reported and handed in."""
    monkeypatch.setenv("LLMHPO_REPORT", str(tmp_path / "report.jsonl"))
    monkeypatch.setenv("LLMHPO_RESULT", str(tmp_path / "result.json"))

    def read() -> Seen:
        lines = (tmp_path / "report.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], json.loads((tmp_path / "result.json").read_text())

    return read


def check(seen: Callable[[], Seen], metric: str, n: int) -> None:
    reports, result = seen()
    assert len(reports) == n
    assert [r["step"] for r in reports] == sorted({r["step"] for r in reports})
    assert result == {metric: reports[-1]["value"]}


def test_xgboost(seen: Callable[[], Seen]) -> None:
    xgboost = pytest.importorskip("xgboost")
    from llmhpo.callbacks.xgboost import ReportCallback

    data = xgboost.DMatrix(X, Y)
    xgboost.train({}, data, 5, evals=[(data, "valid")], callbacks=[ReportCallback("valid-rmse")], verbose_eval=False)
    check(seen, "valid-rmse", 5)


def test_lightgbm(seen: Callable[[], Seen]) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    from llmhpo.callbacks.lightgbm import ReportCallback

    train = lightgbm.Dataset(X, Y, params={"verbose": -1})
    valid = lightgbm.Dataset(X, Y, reference=train)
    lightgbm.train({"verbose": -1}, train, 5, valid_sets=[valid], callbacks=[ReportCallback("valid_0-l2")])
    check(seen, "valid_0-l2", 5)


def test_lightgbm_that_stops_early(seen: Callable[[], Seen]) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    from llmhpo.callbacks.lightgbm import ReportCallback

    train = lightgbm.Dataset(X, Y, params={"verbose": -1})
    valid = lightgbm.Dataset(-X, Y, reference=train)
    callbacks = [ReportCallback("valid_0-l2", "min"), lightgbm.early_stopping(2, verbose=False)]
    lightgbm.train({"verbose": -1}, train, 50, valid_sets=[valid], callbacks=callbacks)
    reports, result = seen()
    assert len(reports) < 50
    assert result == {"valid_0-l2": min(r["value"] for r in reports)}


@pytest.mark.filterwarnings("ignore")
def test_keras(seen: Callable[[], Seen]) -> None:
    keras = pytest.importorskip("keras")
    from llmhpo.callbacks.keras import ReportCallback

    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X, Y, epochs=3, validation_split=0.25, verbose=0, callbacks=[ReportCallback("val_loss")])
    check(seen, "val_loss", 3)


@pytest.mark.filterwarnings("ignore")
def test_lightning(seen: Callable[[], Seen], tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    import torch

    from llmhpo.callbacks.lightning import ReportCallback

    class Line(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, _: int) -> Any:
            return torch.nn.functional.mse_loss(self.layer(batch[0])[:, 0], batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", self.training_step(batch, 0))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y)), 16)
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[ReportCallback("val_loss")],
    )  # fmt: skip
    trainer.fit(Line(), loader, loader)
    check(seen, "val_loss", 3)


@pytest.mark.filterwarnings("ignore")
def test_transformers(seen: Callable[[], Seen], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    from llmhpo.callbacks.transformers import ReportCallback

    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=2
    )
    rows = [{"input_ids": torch.tensor([k % 20, 1, 2]), "labels": torch.tensor(k % 2)} for k in range(16)]
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(
        transformers.BertForSequenceClassification(config), arguments, train_dataset=rows, eval_dataset=rows,
        callbacks=[ReportCallback("eval_loss")],
    )  # fmt: skip
    trainer.train()
    check(seen, "eval_loss", 3)


@pytest.mark.parametrize(("hand_in", "expected"), [("last", 2.0), ("min", 1.0), ("max", 3.0)])
def test_what_is_handed_in_is_what_was_asked_for(seen: Callable[[], Seen], hand_in: HandIn, expected: float) -> None:
    monitor = Monitor("loss", hand_in)
    for value in (3.0, 1.0, 2.0):
        monitor.see({"loss": value})
    monitor.finish()
    assert seen()[1] == {"loss": expected}


def test_a_metric_that_never_came_is_named_beside_those_that_did() -> None:
    monitor = Monitor("val_los")
    monitor.see({"val_loss": 1.0})
    with pytest.raises(ConfigError, match="'val_los' was never reported; training reported: val_loss"):
        monitor.finish()


def test_an_unknown_way_of_handing_in_is_refused() -> None:
    with pytest.raises(ConfigError, match="'best' is none of"):
        Monitor("loss", "best")  # type: ignore[arg-type]
