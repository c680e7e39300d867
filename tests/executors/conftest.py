import os
import warnings

import pytest
from jobs import Bench


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    for executor in bench.executors:
        executor.shutdown(kill=True)


NODE = {"object_store_memory": 80 << 20, "include_dashboard": False}
SYSTEM = {
    "worker_niceness": 0,
    "prestart_worker_first_driver": False,
}  # Ray's own 15 starves a worker on a busy machine
HERE = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]  # loopback; Ray replaces 127.0.0.1 by an outside address


@pytest.fixture(scope="session")
def ray_cluster():
    """A head and a second node on this machine, to which this process is connected."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray", reason="needs the ray extra")
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = Cluster(
            initialize_head=True,
            head_node_args=NODE
            | {"num_cpus": 3, "resources": {"head": 100}, "node_ip_address": HERE[0], "_system_config": SYSTEM},
        )
        cluster.add_node(num_cpus=3, resources={"second": 100}, node_ip_address=HERE[1], **NODE)
        ray.init(
            cluster.address,
            log_to_driver=False,
            configure_logging=False,
            logging_level="ERROR",
            _node_ip_address=HERE[0],
        )
    yield cluster
    ray.shutdown()
    cluster.shutdown()
