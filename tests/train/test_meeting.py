"""Devices meet along every way that a collective may take, and after a barrier."""

import jax
import pytest

from train import mesh as meshes
from train.checkpoint import CheckpointError
from train.distributed import ClusterError
from train.distributed.meeting import groups, is_lost, meet
from train.distributed.protocol import Alone


class Several(Alone):
    """Two processes, as far as a barrier goes."""

    num_processes = 2

    def __init__(self):
        self.barriers = 0

    def barrier(self, name, *, timeout_s):
        self.barriers += 1


class Broken(RuntimeError):
    pass


def test_every_combination_of_axes_that_are_cut_meets_once_all_are_there(monkeypatch):
    mesh, cluster = meshes.build({"data": 2, "fsdp": 2, "tensor": 2}), Several()
    found = groups(mesh)
    assert len(found) == 7 and ("data", "tensor") in found and ("data", "fsdp", "tensor") in found
    assert groups(meshes.build({"data": 8, "fsdp": 1})) == [("data",)]
    ran, run = [], jax.stages.Compiled.__call__

    def noted(program, *arrays):
        assert cluster.barriers == 1, "it ran before all were ready"
        ran.append(arrays[0].size)
        return run(program, *arrays)

    monkeypatch.setattr(jax.stages.Compiled, "__call__", noted)
    meet(mesh, cluster)
    assert sorted(ran) == [2, 2, 2, 4, 4, 4, 8]


def test_a_process_that_does_not_come_ends_it_and_one_alone_waits_for_nobody(monkeypatch):
    mesh, cluster = meshes.build({"data": 8}), Several()

    def never(name, *, timeout_s):
        raise Broken(name)

    monkeypatch.setattr(cluster, "barrier", never)
    with pytest.raises(Broken):
        meet(mesh, cluster)
    monkeypatch.setattr(jax, "jit", None)
    meet(mesh, Alone())


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("UNKNOWN: Gloo all-reduce failed: Read error [127.0.0.1]:1: Connection reset", True),
        ("DEADLINE_EXCEEDED: GetKeyValue() timed out", True),
        ("INTERNAL: NCCL operation failed: remote process exited", True),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes", False),
        ("INVALID_ARGUMENT: shapes differ", False),
    ],
)
def test_errors_of_a_lost_process_ask_for_another_start(text, lost):
    error = jax.errors.JaxRuntimeError(text)
    assert is_lost(error) is lost
    wrapped, save = ClusterError("process 1 has not arrived"), CheckpointError("not saved")
    wrapped.__cause__, save.__cause__ = error, wrapped
    assert is_lost(save) is lost
    assert not is_lost(ClusterError("the processes do not agree")) and not is_lost(OSError(text))
