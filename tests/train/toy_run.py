"""A run in a process of its own, for tests that kill it: `python toy_run.py WORKDIR NUM_DEVICES
NUM_STEPS`."""

import os
import sys
from pathlib import Path

workdir, num_devices, num_steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={num_devices}"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402

from tests.train.toys import loop_config, pages, tokenizer_task  # noqa: E402
from train.loop import train  # noqa: E402

if __name__ == "__main__":
    state = train(tokenizer_task(), pages(), loop_config(num_steps), workdir)
    import jax

    flat = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
    }
    np.savez(workdir / "final.npz", **flat)
