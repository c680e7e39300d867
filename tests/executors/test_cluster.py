"""Where jobs run: what is refused, and the keys of study.toml."""

import pytest

from llmhpo.config import read_study_file
from llmhpo.errors import ConfigError
from llmhpo.executors.cluster import Placement, make_remote

STUDY = """
command = "python train.py --lr {lr}"
metric = "loss"
direction = "minimize"
[space.lr]
type = "float"
low = 0.1
high = 1.0
"""


def study(tmp_path, lines):
    path = tmp_path / "study.toml"
    path.write_text(lines + STUDY)
    return read_study_file(path)


def test_a_study_runs_on_this_machine_unless_it_says_otherwise(tmp_path):
    assert study(tmp_path, "").placement == Placement("local")


def test_a_study_file_says_where_jobs_run(tmp_path):
    lines = 'executor = "ray"\nray_address = "auto"\nresources = {gpus = 0.5, memory_gb = 4}\ndata = ["data"]\nretries = 1\n'
    config = study(tmp_path, lines)
    assert config.placement == Placement("ray", "auto", {"gpus": 0.5, "memory_gb": 4}, ("data",))
    assert config.retries == 1


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"kind": "dask"}, "'local', 'ray', 'slurm'"),
        ({"kind": "local", "resources": {"gpus": 1}}, "executor = 'ray' or executor = 'slurm'"),
        ({"kind": "slurm", "ray_address": "auto"}, "executor = 'ray'"),
        ({"kind": "ray", "slurm": {"timeout_min": 5}}, "executor = 'slurm'"),
    ],
)
def test_a_setting_without_effect_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Placement(**settings)


def test_a_share_of_this_machines_devices_is_refused_on_a_cluster(tmp_path):
    with pytest.raises(ConfigError, match=r"resources = \{gpus = 0.5\}"):
        make_remote(Placement("ray"), lambda params: 1.0, workers=1, cwd=tmp_path, folder=tmp_path, gpus_per_trial=0.5)


def test_devices_of_this_machine_are_refused_on_a_cluster(tmp_path):
    with pytest.raises(ConfigError, match=r"resources = \{gpus = 1\}"):
        make_remote(Placement("ray"), lambda params: 1.0, workers=1, cwd=tmp_path, folder=tmp_path, gpus=("0",))
