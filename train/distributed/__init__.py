"""Several processes as one run: finding each other, waiting for each other by name, agreeing."""

from train.distributed.check import check_cluster
from train.distributed.cluster import Client, Cluster, process_name, start
from train.distributed.environment import ClusterConfig, ClusterError

__all__ = [
    "Client", "Cluster", "ClusterConfig", "ClusterError", "check_cluster", "process_name", "start",
]  # fmt: skip
