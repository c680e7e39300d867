"""The benchmark tasks: every configuration fits its space, every name can be hidden, regret is what the data says."""

from __future__ import annotations

import math
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from evals.tasks import MINI, Task, data_folder, load, synthetic, yahpo
from evals.tasks.anonymous import anonymised
from evals.tasks.base import Stats, space_of


@cache
def mini() -> dict[str, Task]:
    return {task.id: task for task in load(MINI, "mini")}


IDS = [
    "fcnet/naval_propulsion",
    "hpobench_mlp/car",
    "nb201/cifar10",
    "nbgraph/cora",
    "hpob/5965_3903",
    "hpob/5971_10093",
    "hpob/5527_10101",
    "lcbench_pool/kr_vs_kp",
    "xgb_cts/australian",
    "taskset/imdb_patch32_IRNN64_relu_avg_bs128",
    "scan_vlm/bs512",
    "yahpo_rbv2_rpart/32",
    "real/concrete",
    "synthetic/mixed_fails",
]


def task(id_: str) -> Task:
    if id_.startswith("yahpo"):
        pytest.importorskip("onnxruntime")
    return mini()[id_]


@pytest.mark.parametrize("id_", IDS)
def test_what_is_told_is_a_configuration_that_evaluates_to_itself(id_: str) -> None:
    t = task(id_)
    for asked in t.space.sample(np.random.default_rng(0), 5 if t.family == "real" else 40):
        result = t.evaluate(asked)
        assert t.space.coerce(result.params) == result.params
        if t.snap is None:
            assert result.params == asked
        else:
            assert t.snap(asked) == result.params
        again = t.evaluate(result.params)
        assert again.value == result.value
        assert again.distance == pytest.approx(0.0, abs=1e-6)


def test_recorded_replies_and_defaults_fit_their_spaces() -> None:
    for t in mini().values():
        first = [] if t.default is None else [t.default]
        assert all(t.space.coerce(params) == params for params in (*first, *t.recorded)), t.id
    assert sum(len(t.recorded) == 10 for t in mini().values()) == 14


@pytest.mark.parametrize("id_", ["fcnet/naval_propulsion", "hpobench_mlp/car", "nb201/cifar10"])
def test_random_search_has_the_regret_that_the_data_states(id_: str) -> None:
    # grids only: there random search over the space is random search over the rows, which the data's figure is of
    t = task(id_)
    rng = np.random.default_rng(0)
    sign = 1.0 if t.direction == "minimize" else -1.0
    losses = np.array([sign * (t.evaluate(p).value or math.nan) for p in t.space.sample(rng, 4000)])
    expected = float(np.mean([losses[rng.integers(0, len(losses), 30)].min() for _ in range(4000)]))
    assert t.stats.regret(sign * expected) == pytest.approx(t.stats.rs30, rel=0.06)


def test_regret_is_bounded_directed_and_logarithmic_where_asked() -> None:
    up, log = Stats(best=0.9, median=0.5), Stats(best=1e-4, median=1.0, log=True)
    assert [up.regret(v) for v in (0.95, 0.9, 0.7, 0.5, 0.1, None, math.nan)] == pytest.approx(
        [0, 0, 0.5, 1, 1, 1, 1], abs=1e-12
    )
    assert [log.regret(v) for v in (0.0, 1e-4, 1e-2, 1.0, 50.0)] == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-12)
    assert Stats(best=1.0, median=1.0).regret(1.0) == 0.0


@pytest.mark.parametrize("id_", IDS)
def test_anonymous_hides_every_name_and_changes_no_value(id_: str) -> None:
    t = task(id_)
    hidden = anonymised(t)
    told = " ".join([hidden.words, hidden.metric, *hidden.space.names, *map(str, hidden.space.to_dict().values())])
    words = {*t.space.names, t.metric, *(c for p in t.space.params for c in p.choices if isinstance(c, str))}
    words |= {t.id.split("/")[1], t.family}
    assert not [word for word in words if len(word) > 2 and f"{word!r}" in told.replace('"', "'")]
    assert not [word for word in words if len(word) > 4 and word in hidden.words]
    for a, b in zip(
        t.space.sample(np.random.default_rng(3), 5), hidden.space.sample(np.random.default_rng(3), 5), strict=True
    ):
        assert t.evaluate(a).value == hidden.evaluate(b).value
        assert hidden.space.coerce(hidden.evaluate(b).params) == hidden.evaluate(b).params
    assert all(hidden.space.coerce(p) == p for p in hidden.recorded)


def test_a_diverged_run_has_no_value() -> None:
    t = task("taskset/imdb_patch32_IRNN64_relu_avg_bs128")
    results = [t.evaluate(p) for p in t.space.sample(np.random.default_rng(1), 60)]
    assert any(r.value is None for r in results)


def test_the_optimum_of_a_function_is_zero() -> None:
    branin = synthetic.make("synthetic/branin").evaluate({"x0": math.pi, "x1": 2.275})
    assert branin.value == pytest.approx(0.0, abs=1e-5)
    best = [0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573]
    hartmann = synthetic.make("synthetic/hartmann6").evaluate({f"x{i}": x for i, x in enumerate(best)})
    assert hartmann.value == pytest.approx(0.0, abs=1e-4)


def test_halves_part_a_suite() -> None:
    a, b = ([t.id for t in load(MINI, "mini", half=half)] for half in ("a", "b"))  # type: ignore[arg-type]
    assert not set(a) & set(b)
    assert {*a, *b} == set(mini())
    assert [t.id for t in load(MINI, "mini", pattern="hpob/*")] == [i for i in mini() if i.startswith("hpob/")]


def test_an_unknown_suite_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'minni' is unknown"):
        load(MINI, "minni")
    with pytest.raises(FileNotFoundError, match=r"no tasks\.json"):
        data_folder(tmp_path)


def test_a_missing_onnxruntime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    yahpo._session.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    t = mini()["yahpo_rbv2_rpart/32"]
    assert t.default is not None
    with pytest.raises(ImportError, match=r"llmhpo\[bench\]"):
        t.evaluate(t.default)


def test_a_condition_on_any_of_several_parents_is_refused() -> None:
    spec = {"name": "a", "type": "int", "low": 1, "high": 2, "condition": {"all_or_any": "OR", "of": []}}
    with pytest.raises(ValueError, match="'a'"):
        space_of([spec])


def test_the_mini_set_is_small_and_names_its_licences() -> None:
    files = [f for f in MINI.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 8e6
    licences = (MINI / "LICENSES.md").read_text()
    assert all(t.id in licences for t in mini().values() if t.family != "synthetic")
    assert "BY-SA" not in licences
