"""Values written into the code: keywords of well-known constructors, and tables named params, config and the like."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from llmhpo.param import UNSET
from llmhpo.reading.base import Found, Source, scalar, to_kind
from llmhpo.reading.constants import read_constants
from llmhpo.reading.names import judge
from llmhpo.reading.values import UNKNOWN, dotted

# Source: the public class names of scikit-learn 1.9, XGBoost 3.2, LightGBM 4.7, CatBoost, torch.optim, transformers 5, peft, SB3.
_CLASSES = re.compile(
    r"\w*(Classifier|Regressor|Regression|Ranker|TrainingArguments|IsolationForest)$|(Nu|Linear)?SV[CR]$|Ridge\w*|Lasso\w*"
    r"|ElasticNet\w*|(Gaussian|Multinomial|Bernoulli|Complement)NB|PCA|NMF|KMeans|DBSCAN|TruncatedSVD|SelectKBest|RBFSampler"
    r"|Nystroem|TfidfVectorizer|CountVectorizer|PolynomialFeatures|SplineTransformer|KBinsDiscretizer"
    r"|SGD|Adam|AdamW|Adamax|NAdam|RAdam|RMSprop|Adagrad|Adadelta|Lion|Muon|LoraConfig|PPO|SAC|DQN|A2C|TD3|DDPG"
    r"|StepLR|ExponentialLR|CosineAnnealingLR|OneCycleLR|DataLoader|Dropout[123]?d?|CrossEntropyLoss|cross_entropy|CatBoost|Booster"
)
_TABLE = re.compile(
    r"(\w*_)?(params?|config|cfg|hparams|hyperparam\w*|hp|options|settings|args|kwargs)(_\w*)?", re.IGNORECASE
)
_TAKES_TABLE = re.compile(r"(xgb|xgboost|lgb|lightgbm|catboost)\.(train|cv)|wandb\.init|(\w+\.)?CatBoost\w*")


def read_keywords(source: Source) -> list[Found]:
    """Scalars in the keywords of known constructors and in tables of parameters, in the order of the file."""
    found: list[Found] = []
    imported = {a.name.split(".")[0] for n in ast.walk(source.tree) if isinstance(n, ast.Import) for a in n.names}
    library = next((name for name in ("xgboost", "lightgbm", "catboost") if name in imported), "")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            found += _constructor(source, node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = dotted(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            if target and _TABLE.fullmatch(target.rpartition(".")[2]):
                table = _table(source, node.value, target)
                found += [replace(f, owner=f"{library} {f.owner}".strip()) for f in table]
    return _named_apart(sorted(found, key=lambda f: (f.where.cell or 0, f.where.line)))


def _constructor(source: Source, call: ast.Call) -> Iterator[Found]:
    name = dotted(call.func)
    last = name.rpartition(".")[2]
    if _TAKES_TABLE.fullmatch(name):
        tables = [a for a in [*call.args[:1], *(k.value for k in call.keywords)] if isinstance(a, ast.Dict)]
        for table in tables:
            yield from _table(source, table, name)
        for k in call.keywords:
            if k.arg == "num_boost_round":
                yield from _entry(source, k.arg, k.value, f"{name}({k.arg}=)", name)
    if not _CLASSES.fullmatch(last):
        return
    if last.startswith("Dropout") and call.args:
        yield from _entry(source, "dropout", call.args[0], f"{last}()", last)
    for k in call.keywords:
        if k.arg is not None:
            given = "dropout" if last.startswith("Dropout") and k.arg == "p" else k.arg
            yield from _entry(source, given, k.value, f"{last}({k.arg}=)", last)


def _table(source: Source, node: ast.expr, owner: str, depth: int = 0) -> Iterator[Found]:
    """The entries of `{"eta": 0.1}` and `dict(eta=0.1)`, of inner tables too."""
    pairs: list[tuple[object, ast.expr]] = []
    if isinstance(node, ast.Dict):
        pairs = [(source.scope.value(k), v) for k, v in zip(node.keys, node.values, strict=True)]
    elif isinstance(node, ast.Call) and dotted(node.func) in (
        "dict",
        "SimpleNamespace",
        "types.SimpleNamespace",
        "Namespace",
    ):
        pairs = [(k.arg, k.value) for k in node.keywords]
    for key, value in pairs:
        if not isinstance(key, str):
            continue
        if isinstance(value, ast.Dict) and depth < 3:
            yield from _table(source, value, f'{owner}["{key}"]', depth + 1)
        else:
            yield from _entry(source, key, value, f'{owner}["{key}"]', owner)


def _entry(source: Source, name: str, node: ast.expr, spelling: str, owner: str) -> Iterator[Found]:
    """One value written in place. `lr=LR`, `lr=CONFIG["lr"]` and `lr=2 * LR` are found where the name is bound, and only there."""
    value = (
        UNKNOWN
        if isinstance(node, ast.Name | ast.Attribute) or _is_elsewhere(source, node)
        else source.scope.value(node)
    )
    if scalar(value) is not UNSET or isinstance(value, tuple):
        yield Found(
            name, to_kind(value), source.place(node.lineno), "keyword", spelling, default=scalar(value), owner=owner
        )


def _is_elsewhere(source: Source, node: ast.expr) -> bool:
    """Whether an expression takes its value from a constant or a table that is tuned itself: filled in twice, one of both is dead.

    A constant that stays as it is (`0.1 * N_GPUS`) leaves the expression to be tuned.
    """
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    bound = {name: source.scope.value(value) for name in names if (value := source.scope.bound.get(name)) is not None}
    if any(isinstance(v, dict) and _TABLE.fullmatch(n) for n, v in bound.items()):
        return True
    return bool(bound) and any(judge(f).is_tunable for f in read_constants(source) if f.spelling in bound)


def _named_apart(found: list[Found]) -> list[Found]:
    """The same keyword in two places is two settings: dropout, dropout_2."""
    times: dict[str, int] = {}
    out = []
    for one in found:
        times[one.name] = times.get(one.name, 0) + 1
        out.append(one if times[one.name] == 1 else replace(one, name=f"{one.name}_{times[one.name]}"))
    return out
