"""Small states to save, and a process that is killed while it saves: `python saving_toys.py FOLDER
MOMENT`."""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from train.checkpoint import CheckpointConfig, Checkpoints, manifest, retention
from train.state import State


def toy(seed=0, **changes):
    """Every kind of leaf: bfloat16, whole numbers, typed scalars, a list, Python's numbers."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    fields = {
        "step": jnp.int32(seed),
        "params": {
            "stack": {"kernel": normal(8, 16)},
            "listed": {0: normal(4), 1: normal(4).astype(jnp.bfloat16)},
        },
        "extra": {"seen": jnp.uint32(4_000_000_000 + seed), "usage": jnp.arange(6, dtype=jnp.int8)},
        "opt": (
            {"mu": {"kernel": normal(8, 16)}, "count": np.int64(1 << 40)},
            [np.float32(0.1), 7, 0.1, True, jnp.float16(0.1)],
        ),
        "ema": {"stack": {"kernel": normal(8, 16)}},
    }
    return State(**{**fields, **changes})


def quiet(folder, **config):
    """Checkpoints of a run without an identity, saving in the background."""
    return Checkpoints(folder, identity={}, config=CheckpointConfig(**config))


def same(left, right):
    """The same structure, types and bits everywhere."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert type(a) is type(b), (a, b)
        x, y = np.asarray(a), np.asarray(b)
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def die(*_, **__):
    """What a preempted machine does."""
    os.kill(os.getpid(), signal.SIGKILL)


def main():
    folder, moment = Path(sys.argv[1]), sys.argv[2]
    saves = quiet(folder, keep=1)
    saves.save(toy(1), 1)
    saves.wait()
    if moment == "arrays":
        saves._writer.finish = die
    elif moment == "manifest":
        manifest.os.replace = die
    elif moment == "removal":
        retention.shutil.rmtree = die
    saves.save(toy(2), 2)
    saves.wait()


if __name__ == "__main__":
    main()
