"""A run in a process of its own, for tests that kill it: `python toy_run.py WORKDIR NUM_DEVICES
NUM_STEPS`."""

import os
import sys
from pathlib import Path

workdir, num_devices, num_steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402

from tests.bundles import COMPILED_QUICKLY  # noqa: E402

devices = f"--xla_force_host_platform_device_count={num_devices}"
os.environ["XLA_FLAGS"] = f"{devices} {COMPILED_QUICKLY}"

from tests.train.toys import NetTask, net_config, vectors  # noqa: E402
from train.checkpoint.retention import CheckpointConfig  # noqa: E402
from train.loop import train  # noqa: E402

PLACES = {
    1: {"mesh": {"data": 1}},
    8: {
        "mesh": {"data": 2, "fsdp": 2, "tensor": 2},
        "rules": {"B": ("data", "fsdp"), "D": "fsdp", "F": "tensor"},
    },
}

if __name__ == "__main__":
    config = net_config(num_steps, checkpoint=CheckpointConfig(3), **PLACES[num_devices])
    state = train(NetTask(), vectors(), config, workdir)
    import jax

    flat = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
    }
    np.savez(workdir / "final.npz", **flat)
