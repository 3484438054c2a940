"""One process of a run under `jax.distributed` that can be asked to stop: `python stopping_toy.py
PORT INDEX HANGING`. With HANGING 1, process 0 never gets out of its compile, as far as anyone can
tell."""

import ctypes
import dataclasses
import os
import sys
import time
from pathlib import Path

port, index, hanging = map(int, sys.argv[1:])
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "2"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax._src import distributed  # noqa: E402  # its client is what a Cluster wraps

from train import mesh as meshes  # noqa: E402
from train.supervision.stopping import Stop, Stopped, agreed  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Service:
    """The coordination service of `jax.distributed`."""

    process_index: int
    num_processes: int = 2

    @property
    def name(self):
        return f"process {self.process_index}"

    def put(self, key, value):
        distributed.global_state.client.key_value_set(key, value, allow_overwrite=True)

    def get(self, key):
        try:
            return distributed.global_state.client.key_value_try_get(key)
        except jax.errors.JaxRuntimeError:
            return None

    def barrier(self, name, timeout_s):
        distributed.global_state.client.wait_at_barrier(name, int(timeout_s * 1000))


@jax.jit
def one_step(state, flag):
    return state + 1, {"stop": agreed(flag)[0]}


def compile_or_hang():
    print("compiling", flush=True)
    if hanging and index == 0:
        mutex = ctypes.create_string_buffer(64)
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


def train(stop, starting):
    mesh = meshes.build({"data": 2, "fsdp": 2})
    with jax.set_mesh(mesh):
        compile_or_hang()
        state, late = jnp.zeros((), jnp.int32), None
        for step in range(1, 10_000):
            state, scalars = one_step(state, stop.flags(mesh))
            if late is not None:
                if step == 2:
                    starting.end()
                    print("started", flush=True)
                if int(late["stop"]):
                    assert stop.agreed(mesh)
                    print("left after step", step, "with state", int(state), flush=True)
                    raise Stopped(step)
                if step % 10 == 0 and stop.agreed(mesh):  # as in an evaluation
                    print("left after step", step, "with state", int(state), flush=True)
                    raise Stopped(step)
            late = scalars
            time.sleep(0.003 * index)


if __name__ == "__main__":
    with Stop() as stop, stop.starting(None) as starting:
        jax.distributed.initialize(f"localhost:{port}", 2, index)
        starting.cluster = Service(index)
        train(stop, starting)
