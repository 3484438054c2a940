"""One of two processes that restore, save and restore together: `python saving_processes.py FOLDER
PORT PROCESS`."""

import itertools
import os
import sys
from pathlib import Path

folder, port, process = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import json  # noqa: E402

import jax  # noqa: E402

jax.distributed.initialize(f"localhost:{port}", 2, process)

import numpy as np  # noqa: E402
from jax._src import distributed  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

from tests.train.saving_toys import toy  # noqa: E402
from train import mesh as meshes  # noqa: E402
from train.checkpoint import CheckpointConfig, Checkpoints, load_weights  # noqa: E402


class Pair:
    """Two processes and the service that knows both."""

    process_index, num_processes, is_first = process, 2, process == 0
    _calls = itertools.count()

    def barrier(self, name, *, timeout_s):
        client = distributed.global_state.client
        client.wait_at_barrier(f"{name} {next(self._calls)}", round(1000 * timeout_s))

    def gather(self, name, value, *, timeout_s):
        client, here = distributed.global_state.client, f"{name} {next(self._calls)}"
        client.key_value_set(f"{here}/{process}", json.dumps(value))
        client.wait_at_barrier(here, round(1000 * timeout_s))
        return [json.loads(text) for _, text in sorted(client.key_value_dir_get(here))]


def abstract(shape, spec):
    """A toy state whose one large array lies on this mesh; the rest is on every device."""
    mesh = meshes.build(shape)

    def place(leaf, *spec):
        if not isinstance(leaf, jax.Array):
            return leaf
        where = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    wanted = jax.tree.map(place, toy())
    wanted.params["stack"]["kernel"] = place(toy().params["stack"]["kernel"], *spec)
    return wanted


def whole(array):
    """All of an array's numbers, whichever process holds them."""
    if not isinstance(array, jax.Array):
        return np.asarray(array)
    everywhere = NamedSharding(meshes.build({"fsdp": 4}), PartitionSpec())
    return np.asarray(jax.jit(lambda x: x, out_shardings=everywhere)(array).addressable_data(0))


def main():
    config = CheckpointConfig(keep=2, timeout_s=60)
    with Checkpoints(folder, identity={}, config=config, cluster=Pair()) as saves:
        state = saves.restore(abstract({"fsdp": 4}, ("fsdp",)))
        kernel = state.params["stack"]["kernel"]
        assert [shard.data.shape for shard in kernel.addressable_shards] == [(2, 16)] * 2
        saves.save(state, 2, metrics={"loss": 0.5})
        saves.wait()
        assert saves.steps() == [1, 2]
        again = saves.restore(abstract({"data": 2, "fsdp": 2}, (None, "fsdp")))
        for one, two, here in zip(*map(jax.tree.leaves, (state, again, toy(1))), strict=True):
            np.testing.assert_array_equal(whole(one), np.asarray(here))
            np.testing.assert_array_equal(whole(two), np.asarray(here))
        if process == 0:  # a reader waits for nobody
            weights, _, _ = load_weights(folder)
            np.testing.assert_array_equal(weights["stack"]["kernel"], toy(1).ema["stack"]["kernel"])


if __name__ == "__main__":
    main()
