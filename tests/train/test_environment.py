"""Which cluster the environment describes, and what a process should see there."""

import os
import re

import jax
import pytest

from train.distributed import environment
from train.distributed.environment import ClusterConfig, ClusterError, expected_devices

FOREIGN = re.compile(
    "LETTERPRESS|SLURM|OMPI|KUBERNETES|JOB_COMPLETION|TPU|MEGASCALE|CUDA|JAX_(NUM|COORD|LOCAL)"
)
SLURM = {
    "SLURM_JOB_ID": "4096", "SLURM_STEP_NODELIST": "node[07-08]", "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_GPUS_ON_NODE": "8",
}  # fmt: skip
OPENMPI = {
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_MCA_orte_hnp_uri": "8192.0;tcp://10.96.0.1:34911",
}  # fmt: skip
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"}


@pytest.fixture
def environ(monkeypatch, tmp_path):
    """Sets variables in an environment that says nothing, on a machine without GPUs."""
    for name in list(os.environ):
        if FOREIGN.match(name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(environment, "_DEV", tmp_path)

    def give(variables, *, gpus=0):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        for name in [*(f"nvidia{i}" for i in range(gpus)), "nvidiactl", "nvidia-uvm"]:
            (tmp_path / name).touch()

    return give


@pytest.fixture
def wants_gpu():
    """As on a machine where JAX may choose its platform."""
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    yield
    jax.config.update("jax_platforms", before)


def who(config):
    return config.kind, config.coordinator, config.num_processes, config.process_id


def test_nothing_said_is_one_process(environ):
    environ({})
    assert who(ClusterConfig.from_environment()) == ("single", "", 1, 0)


def test_our_launchers_come_first(environ):
    ours = {"COORDINATOR": "h:1", "NUM_PROCESSES": "3", "PROCESS_ID": "2", "LOCAL_DEVICES": "4"}
    environ({**SLURM, **{f"LETTERPRESS_{k}": v for k, v in ours.items()}})
    config = ClusterConfig.from_environment()
    assert who(config) == ("explicit", "h:1", 3, 2) and config.local_devices == 4
    given = ClusterConfig.from_environment(kind="explicit", coordinator="g:2", process_id=0)
    assert who(given) == ("explicit", "g:2", 3, 0)
    assert who(ClusterConfig.from_environment(kind="single")) == ("single", "", 1, 0)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (SLURM, ("slurm", "node07:61440", 2, 1)),
        ({**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, ("slurm", "", 1, 0)),
        ({**SLURM, "LETTERPRESS_COORDINATOR": "h:1"}, ("slurm", "h:1", 2, 1)),
        (OPENMPI, ("openmpi", "10.96.0.1:61442", 4, 3)),
        ({**SLURM, **OPENMPI}, ("openmpi", "10.96.0.1:61442", 4, 3)),
        ({**POD, "LETTERPRESS_COORDINATOR": "job-0:9", "LETTERPRESS_NUM_PROCESSES": "4"},
         ("kubernetes", "job-0:9", 4, 2)),
        ({**POD, "JAX_COORDINATOR_ADDRESS": "job-0:9", "LETTERPRESS_NUM_PROCESSES": "4"},
         ("kubernetes", "job-0:9", 4, 2)),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ("single", "", 1, 0)),
    ],
)  # fmt: skip
def test_schedulers_are_recognised(environ, variables, expected):
    environ(variables)
    assert who(ClusterConfig.from_environment()) == expected


def test_a_tpu_slice_is_recognised(environ, monkeypatch):
    from jax._src.clusters import cloud_tpu_cluster

    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    environ({
        "TPU_WORKER_HOSTNAMES": "localhost,worker1", "TPU_WORKER_ID": "1",
        "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1",
        "MEGASCALE_COORDINATOR_ADDRESS": "localhost:1",
    })  # fmt: skip
    assert who(ClusterConfig.from_environment()) == ("tpu", "localhost:8482", 4, 3)


@pytest.mark.parametrize(
    ("variables", "kind", "words"),
    [
        ({"LETTERPRESS_PROCESS_ID": "1"}, "auto", "set LETTERPRESS_COORDINATOR and LETTERPRESS_NU"),
        ({"LETTERPRESS_NUM_PROCESSES": "2"}, "explicit", "LETTERPRESS_PROCESS_ID"),
        ({"JAX_COORDINATOR_ADDRESS": "h:1"}, "auto", "LETTERPRESS_NUM_PROCESSES and"),
        ({"LETTERPRESS_NUM_PROCESSES": "two"}, "auto", "LETTERPRESS_NUM_PROCESSES is 'two'"),
        ({"LETTERPRESS_COORDINATOR": "h:1", "LETTERPRESS_NUM_PROCESSES": "2",
          "LETTERPRESS_PROCESS_ID": "2"}, "auto", "no process 2 among 2"),
        ({}, "slurm", "the environment shows none"),
        ({}, "torque", "'torque' is none of auto, single"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16"}, "auto", "16 tasks .* srun"),
        ({k: v for k, v in OPENMPI.items() if "orte" not in k}, "auto",
         r"half described \(openmpi\): set LETTERPRESS_COORDINATOR$"),
        ({"JOB_COMPLETION_INDEX": "0", "KUBERNETES_SERVICE_HOST": "h",
          "LETTERPRESS_COORDINATOR": "h:1"}, "auto", "set LETTERPRESS_NUM_PROCESSES, or install"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*Kubernetes environment detected")
def test_half_an_answer_is_an_error_that_names_the_rest(environ, variables, kind, words):
    environ(variables)
    with pytest.raises(ClusterError, match=words):
        ClusterConfig.from_environment(kind=kind)


@pytest.mark.parametrize(
    ("variables", "gpus", "ids", "count"),
    [
        ({}, 0, (), 0),
        ({}, 8, (), 8),
        ({"CUDA_VISIBLE_DEVICES": "2,5"}, 8, (), 2),
        ({"CUDA_VISIBLE_DEVICES": ""}, 8, (), 0),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, 8, (), 1),
        ({"JAX_LOCAL_DEVICE_IDS": "0,1"}, 8, (), 2),
        (SLURM, 8, (), 8),  # one process a node: all eight, where JAX would take one
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "0"}, 8, (), 8),  # and JAX would see one: an error
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1,8", "SLURM_LOCALID": "3"}, 8, (3,), 1),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_LOCALID": "1"}, 8, (4, 5, 6, 7), 4),
        # the scheduler has bound one each: number 0 is its own
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_LOCALID": "3",
          "CUDA_VISIBLE_DEVICES": "3"}, 8, (), 1),
        (OPENMPI, 4, (2, 3), 2),
        ({"LETTERPRESS_LOCAL_DEVICES": "8"}, 1, (), 8),
    ],
)  # fmt: skip
def test_gpus_are_shared_out_and_counted(environ, wants_gpu, variables, gpus, ids, count):
    environ(variables, gpus=gpus)
    config = ClusterConfig.from_environment()
    assert config.device_ids == ids
    expected = expected_devices(config)
    assert expected.count == count
    assert expected.gpus == (count > 0)


def test_emulated_devices_are_counted_on_cpu(environ):
    environ({"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}, gpus=4)
    assert expected_devices(ClusterConfig()).count == 8
    environ({"JAX_NUM_CPU_DEVICES": "2"})
    assert expected_devices(ClusterConfig()).count == 2
    assert not expected_devices(ClusterConfig()).gpus
    assert expected_devices(ClusterConfig(local_devices=3)).count == 3
