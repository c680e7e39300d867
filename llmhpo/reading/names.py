"""What a setting is, judged by its name and type: a known hyperparameter, something to leave alone, or an unknown one.

The tables are read from top to bottom, the first line that fits decides. Names are compared in snake_case, with an
underscore at either end; of a dotted name the last part counts.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from llmhpo.param import UNSET
from llmhpo.reading.base import Found, Kind

NUMBERS: Final[tuple[Kind, ...]] = ("float", "int", "unknown")
_ANY: Final[tuple[Kind, ...]] = ("float", "int", "bool", "str", "path", "list", "unknown")


class Verdict(NamedTuple):
    """Whether a setting is tuned, as what, and why. `is_sure` is False where only the type speaks for it."""

    is_tunable: bool
    role: str
    reason: str
    is_sure: bool = True


class _Rule(NamedTuple):
    role: str
    pattern: re.Pattern[str]
    kinds: tuple[Kind, ...] = NUMBERS


def _rule(role: str, pattern: str, kinds: tuple[Kind, ...] = NUMBERS) -> _Rule:
    return _Rule(role, re.compile(pattern), kinds)


_TEXT: Final[tuple[Kind, ...]] = ("str", "unknown", "bool")

FIXED = {
    "seed": "a seed: it moves the noise, not the model",
    "verbosity": "says how much is printed, logged or saved, and when",
    "device": "says where and how fast the job runs, not what it learns",
    "evaluation": "part of the measurement: tuned, it would change the yardstick",
    "data": "given by the data or the task",
    "budget": "the budget of one trial: held fixed, so that trials compare at equal cost",
    "stopping": "a stopping rule: it belongs to the budget",
    "place": "names a file, a place or an account",
    "mode": "chooses what the program does, not how well",
}
_N = r"_(?:n_|num_|max_|min_|total_|nb_|number_of_)?"

_FIRST = (
    _rule("place", r"_(init|start|load|resume|restart|initialize|warm_start|weights)_from_", _ANY),
    _rule("seed", r"_(seed|random_state|rng|manual_seed|np_seed|data_seed|random_seed)_", _ANY),
    _rule("evaluation", r"(?<!_clip)_(eval|test|val|valid|validation|metrics?|scoring|cv|folds?|kfold|n_splits|holdout|dev)_", _ANY),
    _rule("verbosity", r"_(verbose|verbosity|verbose_eval|log_level|log_interval|log_every\w*|logging\w*|log_freq\w*|print\w*|silent|quiet|debug|progress\w*|save_\w+|save|report_to|plot|tqdm|disp|version|help|\w+_interval|display\w*|show\w*|capture_\w+|record_\w+|render\w*|video\w*)_", _ANY),
    _rule("device", r"(?<!_per)_(device|devices|gpu|gpus|cuda|no_cuda|use_cuda|use_cpu|use_gpu|n_gpus?|num_gpus?|gpu_ids?|no_accel|mps|no_mps|tpu|n_jobs|n_?threads?|nthread|num_threads?|workers|num_workers|dataloader_num_workers|n_workers|n_cpus?|cpus?|local_rank|rank_id|world_size|dist_\w+|distributed|backend|pin_memory|persistent_workers|prefetch\w*|fp16|bf16|tf32|amp|use_amp|mixed_precision|precision|dtype|compile|torch_compile|gradient_checkpointing|tree_method|predictor|thread_count|task_type|parallel|deterministic|benchmark|n_nodes|num_nodes|master_port|ddp\w*|nccl\w*|accelerator|strategy)_", _ANY),
    _rule("data", r"_(in|input|out|output|image|img|patch_in)_(dims?|size|features|channels|shape|units|width|height)_|_(?:n|num|nb)_(?:classes|class|labels?|features|inputs?|outputs?|tokens|actions|samples|train(?=_$)|points|examples|users|items|targets|channels_in)_|_n_(?:train|samples)\w*_|_(vocab|vocabulary)(_size)?_|_(image|img|crop)_?size_|_resolution_|_(max_)?(seq|sequence|source|target)?_?(len|length)_|_seq_len\w*_|_(block|context)_(size|length)_|_(train|test)_(size|fraction|frac|ratio|split)_|_split(_\w+)?_|_max_(train_|eval_)?samples_|_(subset|limit|fraction_of_data|sample_size)_|_(objective|eval_metric|num_class|target|targets|task|task_name|label_col\w*|feature_cols?)_|_padding_|_noise_level_", _ANY),
)  # fmt: skip

TUNABLE = (
    _rule("warmup_ratio", r"_warm_?up_(ratio|fraction|frac|proportion|pct|prop)_|_pct_start_", ("float", "unknown")),
    _rule("warmup_steps", rf"_(?:lr_)?{_N[1:]}warm_?up(_(steps|iters|epochs?|iterations|updates))?_", NUMBERS),
    _rule("min_lr", r"_(min_lr|lr_min|eta_min|min_learning_rate|lr_end|end_lr|min_lr_ratio)_", ("float", "unknown")),
    _rule("lr_decay", r"_(lr|learning_rate)_(decay|gamma|factor|mult|drop|decay_rate|decay_factor|shrink)_|_decay_rate_|_lrd_", ("float", "unknown")),
    _rule("boost_lr", r"_(eta|learning_rate|lr|shrinkage)_$", ("float", "int", "unknown")),  # only of boosters, see _role
    _rule("lr", r"_(lr|lr\d|learning_rate|learning_?rate_init|learningrate|eta0?|lrate|base_lr|max_lr|init_lr|peak_lr|step_size_init)_(?!(scheduler?|schedule|decay|policy|type|steps?)_)", ("float", "int", "unknown")),
    _rule("l1_ratio", r"_l1_ratio_|_elastic_?net_ratio_", ("float", "unknown")),
    _rule("mix", r"_(mixup|cutmix)(_alpha|_prob)?_|_smoothing_noise_", ("float", "unknown")),
    _rule("lora_alpha", r"_lora_alpha_", NUMBERS),
    _rule("label_smoothing", r"_(label_?)?smoothing(_factor)?_", ("float", "unknown")),
    _rule("dropout", r"_(\w*dropout\w*|drop|drop_?rate|drop_?path(_rate)?|droprate|p_?drop|drop_?prob|stochastic_depth\w*|skip_drop|rate_drop|\w*pdrop)_", ("float", "unknown")),
    _rule("penalty", r"_(weight_?decay|wd|l2|l1|l2_reg\w*|l1_reg\w*|reg_lambda|reg_alpha|lambda_l1|lambda_l2|l2_leaf_reg|reg|reg_strength|regularization|l2_regularization|l2_penalty|l1_penalty|alpha|lambda|lam|lmbda|lambda_\w+|ridge|penalty_weight|reg_covar|var_smoothing)_", ("float", "int", "unknown")),
    _rule("beta2", r"_(adam_)?beta_?2_", ("float", "unknown")),
    _rule("beta1", r"_(adam_)?beta_?1_", ("float", "unknown")),
    _rule("momentum", r"_(sgd_|nesterov_|bn_)?momentum_", ("float", "unknown")),
    _rule("epsilon", r"_(adam_)?(eps|epsilon)_", ("float", "unknown")),
    _rule("inverse_penalty", r"^_c_$", ("float", "int", "unknown")),
    _rule("accumulation", r"_(gradient_|grad_)?(accumulation|accum|accumulate)(_steps|_grad_batches)?_|_accumulate_grad\w*_", ("int", "unknown")),
    _rule("clip", r"_max_grad_norm_|_(grad|gradient)_?(clip\w*|norm\w*)_|_clip(ping)?_?(grad\w*|norm|value|gradient)?_|_(grad_)?clip_", ("float", "int", "unknown")),
    _rule("clip_range", r"_clip_(range|coef|eps|epsilon|param|ratio)_", ("float", "unknown")),
    _rule("batch", r"_(per_device_|per_gpu_|train_|device_|global_|local_|mini_|micro_)*(batch_?size|bs|mini_?batch(_size)?|micro_batch(_size)?|batch|batch_tokens)(_train|_per_\w+)?_", ("int", "unknown")),
    _rule("max_depth", r"_(max_depth|tree_depth|max_tree_depth)_", ("int", "unknown")),
    _rule("heads", rf"{_N}(attention_)?heads?_|_nheads?_|_n_heads?_", ("int", "unknown")),
    _rule("depth", rf"{_N}(hidden_|conv_|encoder_|decoder_|res_|lstm_|rnn_|gnn_)?(layers?|blocks)_|_n_layers?_|_nlayers?_|_hidden_layers_|_depth_", ("int", "unknown")),
    _rule("rank", r"^_(lora_)?(r|rank)_$|_lora_(r|rank|dim)_", ("int",)),
    _rule("width", r"_(hidden|\w*hidden_(size|dims?|units|channels|features|width)|nhid|n_?hidden|hid_?dims?|width|units|channels|base_channels|(num_|n_|nb_)?filters|(num_|n_)?(units|neurons|channels|hidden)|\w*embed\w*_(dims?|size)|embed|emb_?(dims?|size)|emsize|d_model|n_embd|d_ff|d_inner|ff_dims?|ffn_dims?|dim_feedforward|mlp_(dims?|hidden|width)|latent_dims?|bottleneck_dims?|width_mult\w*)_", ("int", "unknown")),
    _rule("leaves", r"_(num_leaves|max_leaves|max_leaf_nodes)_", ("int", "unknown")),
    _rule("estimators", r"_(n_estimators|num_boost_rounds?|n_rounds|num_rounds?|boost_rounds?|nrounds|n_trees|num_trees|num_iterations)_", ("int", "unknown")),
    _rule("child_weight", r"_(min_child_weight|min_sum_hessian_in_leaf)_", ("float", "int", "unknown")),
    _rule("leaf_samples", r"_(min_samples_leaf|min_child_samples|min_data_in_leaf|min_samples_in_leaf|min_leaf(_size)?)_", ("int", "unknown")),
    _rule("split_samples", r"_min_samples_split_", ("int", "unknown")),
    _rule("share", r"_(subsample|bagging_fraction|max_samples|colsample\w*|feature_fraction\w*|bootstrap_fraction|rsm|max_features)_", ("float",)),
    _rule("subsample_freq", r"_(bagging_freq|subsample_freq)_", ("int",)),
    _rule("bins", r"_max_bins?_", ("int", "unknown")),
    _rule("split_gain", r"_(min_split_gain|min_gain_to_split|min_split_loss|min_impurity_decrease|ccp_alpha)_", ("float", "int", "unknown")),
    _rule("discount", r"_(discount|discount_factor|gae_lambda)_", ("float", "unknown")),
    _rule("gamma", r"^_gamma_$", ("float", "int", "unknown")),
    _rule("tau", r"^_(tau|polyak|soft_update\w*)_$", ("float", "unknown")),
    _rule("entropy", r"_(ent|entropy|ent_reg)_(coef\w*|weight|bonus|reg)_", ("float", "unknown")),
    _rule("coefficient", r"_(vf|value|value_loss|kl|aux|\w*loss)_(coef\w*|weight)_", ("float", "unknown")),
    _rule("positive_weight", r"_(scale_)?pos(itive)?_weight_", ("float", "int", "unknown")),
    _rule("neighbors", r"_(n_neighbors|n_neighbours|num_neighbors|k_neighbors|knn_k)_", ("int", "unknown")),
    _rule("degree", r"^_(degree|poly_degree|polynomial_degree)_$", ("int", "unknown")),
    _rule("components", r"_(n_components|n_topics|num_components|n_clusters)_", ("int", "unknown")),
    _rule("coef0", r"^_coef0_$", ("float", "int", "unknown")),
    _rule("temperature", r"_(temperature|temp)_", ("float", "unknown")),
    _rule("kernel_size", r"_(kernel_size|ksize|filter_size)_", ("int",)),
    _rule("schedule_steps", r"_(lr_)?(step_size|decay_steps|lr_steps?|lr_step_size|lr_decay_(iters|steps|epochs)|lr_decay_every)_", ("int", "unknown")),
    _rule("ngram", r"_(min_df|max_df)_", ("float", "int")),
    _rule("passes", r"_(update|ppo|opt|inner|sgd)_epochs_|_num_sgd_iter_|_n_updates_per_\w+_", ("int", "unknown")),
    _rule("schedule", r"_(lr_)?(scheduler?|schedule|sched)(_type|_name)?_|_lr_policy_|_learning_rate_schedule_|_decay_type_", _TEXT),
    _rule("choice", r"_(optimizer|optim|opt|solver|activation|act|act_fn|nonlinearity|kernel|criterion|penalty|loss|loss_fn|booster|boosting_type|boosting|grow_policy|weights|init|initializer|norm|normalization|pool|pooling|augment|augmentation|max_features|class_weight|bootstrap|nesterov|amsgrad|algorithm|splitter|gamma|learning_rate|bias|batch_?norm|layer_?norm|residual|fit_intercept|probability_calibration|centered|whiten|oob|scaler|imputer|interaction_only|sublinear_tf|use_idf|p)_", ("str", "bool")),
    _rule("power", r"^_p_$", ("int",)),
)  # fmt: skip

_LAST = (
    _rule("stopping", r"_(early_stop\w*|patience|tol|tolerance|n_iter_no_change|min_delta|stopping_\w+|stop_\w+|eps_stop)_", _ANY),
    _rule("budget", r"_(epochs?|iters?|iterations?|max_iter|n_iter\w*|steps?|updates|timesteps|total_\w*steps|\w+_epochs|\w+_iters|\w*max_steps|\w*train_steps|num_steps|n_steps|time_limit|timeout|timeout_s|max_time|episodes|num_episodes|n_episodes|rounds|repeats?|n_repeats|(?:n_|num_)?passes|trials|n_trials)_", _ANY),
    _rule("place", r"_(\w*paths?|\w*files?|filename|dirs?|directory|folder|root|output|outputs|out|input|inputs|saved?|load|checkpoints?|checkpoint_\w+|ckpt\w*|resume\w*|logdir|log|logs|cache\w*|url|uri|host|port|address|endpoint|config|cfg|conf|data|dataset\w*|datasets|csv|json|restore|pretrained\w*|\w*from_pretrained|export\w*|store|store_model|prefix|suffix|hub\w*|push_to_hub|token|api_key|username|user|entity|model_name_or_path|tokenizer\w*|bucket|db|database|experiment|exp|exp_name|exp_id|run|run_id|run_name|name|project|project_name|group|tags?|notes|comment|author|title|description|id|wandb\w*|tensorboard|mlflow\w*|tracking\w*|track)_", _ANY),
    _rule("mode", r"_(mode|command|cmd|action|stage|phase|do_\w+|dry_run|overwrite\w*|force|skip_\w+|download\w*|inference|evaluate|predict|train|test_only|eval_only|profile\w*|version|help|ci|smoke|fast_dev_run|interactive|remove_unused\w*|load_best\w*|greater_is_better|enable_categorical|copy\w*|warm_start|shuffle|drop_last|refit|keep_\w+|oob_score|probability|shrinking|precompute|cache_size|return_\w+|validate_parameters|include_\w+|capturable|foreach|fused|maximize|differentiable|presort|store_\w+|allow_\w+|use_label_encoder|handle_unknown|sparse\w*|strict)_", _ANY),
)  # fmt: skip

_SECTIONS = {
    "logging": "verbosity", "logger": "verbosity", "log": "verbosity", "wandb": "verbosity", "callbacks": "verbosity",
    "data": "data", "dataset": "data", "datasets": "data", "paths": "place", "path": "place", "checkpoint": "place",
    "eval": "evaluation", "evaluation": "evaluation", "validation": "evaluation", "hardware": "device", "env": "data",
}  # fmt: skip
_AUGMENTS = ("aug", "augs", "augment", "augmentation", "augmentations")
_ROLLOUT = re.compile(r"\b(per|each|in a|of a|one) (policy )?rollout|\brollout length\b")
_BOOSTER = re.compile(r"XGB|LGBM|CatBoost|GradientBoosting|xgb|lgb|catboost|Booster")


def judge(found: Found) -> Verdict:
    """Whether `found` is tuned, and why or why not."""
    if len(found.choices) == 1:
        return Verdict(False, "choice", f"has one value only, {found.choices[0]!r}")
    name = snake(found.name)
    for spelled in dict.fromkeys((name, re.sub(r"_\d+_$", "_", name))):  # dropout_2 is a dropout, beta_2 is none
        role = _role(spelled, found, _FIRST)
        if role == "data" and any(part in _AUGMENTS for part in found.name.lower().split(".")[:-1]):
            role = None  # aug.crop_padding says how the data is changed, not what it is
        if role is None and (role := _role(spelled, found, TUNABLE)) is not None:
            return _tunable(found, role)
        role = role or _role(spelled, found, _LAST)
        if role == "place" and spelled == "_name_" and len(found.choices) > 1:  # optim.name: one of "adam", "sgd"
            return Verdict(True, "choice", "the script lists its choices", is_sure=False)
        if role == "budget" and found.kind == "int" and _ROLLOUT.search(found.doc.lower()):
            return Verdict(True, "rollout", "its help says that it counts the steps of one rollout")
        if role is not None:
            return Verdict(False, role, FIXED[role])
    for part in found.name.lower().split(".")[:-1]:
        if (role := _SECTIONS.get(part)) is not None:
            return Verdict(False, role, FIXED[role])
    return _by_type(found)


def snake(name: str) -> str:
    """The last part of a name in snake_case between underscores: "optim.maxDepth" gives "_max_depth_"."""
    last = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name.rpartition(".")[2])
    return f"_{last.lower().replace('-', '_').strip('_')}_"


def is_booster(found: Found) -> bool:
    """Whether a setting belongs to gradient boosting, where learning rates are larger and `gamma` is another thing."""
    return _BOOSTER.search(f"{found.owner} {found.spelling}") is not None


def _role(name: str, found: Found, rules: tuple[_Rule, ...]) -> str | None:
    for rule in rules:
        if found.kind in rule.kinds and rule.pattern.search(name) and (rule.role != "boost_lr" or is_booster(found)):
            return rule.role
    return None


def _tunable(found: Found, role: str) -> Verdict:
    if found.kind == "list":
        return Verdict(False, role, "a list of values: name the choices by hand to tune it")
    if found.kind == "bool" or role != "choice" or found.choices:
        return Verdict(True, role, f"known by its name as {LABELS.get(role, role.replace('_', ' '))}")
    if found.passing in ("constant", "env") and found.default is UNSET:
        return Verdict(False, role, "a text without a list of choices: name them by hand to tune it")
    return Verdict(True, role, "known by its name as a choice among methods")


def _by_type(found: Found) -> Verdict:
    """What is left when the name says nothing: declared numbers, choices and switches are taken, with a caveat."""
    if found.kind == "path":
        return Verdict(False, "place", FIXED["place"])
    if found.kind == "list":
        return Verdict(False, "list", "a list of values: name the choices by hand to tune it")
    in_table = found.passing == "keyword" and found.spelling.endswith('"]')
    is_declared = in_table or (
        found.passing not in ("keyword", "env") and (found.passing != "constant" or bool(found.owner))
    )
    if not is_declared:
        return Verdict(
            False, "unknown", "no known hyperparameter's name, and the code does not declare it as a setting"
        )
    if found.choices:
        return Verdict(True, "choice", "the script lists its choices", is_sure=False)
    if found.kind in ("float", "int", "bool"):
        noun = {"float": "number", "int": "whole number", "bool": "switch"}[found.kind]
        return Verdict(
            True, "other", f"a {noun} that the script lets one set; its name is not a known one", is_sure=False
        )
    return Verdict(False, "text", "a text without a list of choices: name them by hand to tune it")


LABELS = {
    "lr": "a learning rate", "boost_lr": "the shrinkage of boosting", "min_lr": "the end of a learning rate schedule",
    "lr_decay": "the decay of a learning rate", "penalty": "a penalty or decay", "inverse_penalty": "an inverse penalty",
    "batch": "a batch size", "width": "a width", "depth": "a number of layers", "estimators": "a number of trees",
    "share": "a share of rows or columns", "choice": "a choice among methods", "schedule": "a learning rate schedule",
}  # fmt: skip
