"""One of two processes that begin with the same weights: `python starting_toy.py SOURCE FOLDER`.
The LETTERPRESS_* variables say which process it is."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import numpy as np

from tests.train.toys import NetTask, loop_config, vectors
from train.checkpoint import About
from train.checkpoint.arrays import named
from train.exits import DONE
from train.export.folder import open_run
from train.loop import train
from train.optimizer import OptimizerConfig
from train.supervision import supervised

PLACES = {"mesh": {"data": 2, "fsdp": 2}, "rules": {"B": ("data", "fsdp"), "D": "fsdp"}}


def starting_config(num_steps, **changes):
    """An optimizer that compiles fast."""
    optimizers = {"hidden": OptimizerConfig("adamw", 1e-3)}
    return loop_config(num_steps, **{"optimizers": optimizers, **changes})


def main(source, folder):
    about = About(init=str(source))
    with supervised() as watch:
        state = train(
            NetTask(), vectors(), starting_config(0, **PLACES), folder / "zero", about=about
        )
        shards = 0
        with open_run(source) as (found, _):
            for name, array in named({"params": state.params, "extra": state.extra}).items():
                whole = np.asarray(found[name][...])
                for shard in array.addressable_shards:
                    np.testing.assert_array_equal(shard.data, whole[shard.index])
                    shards += shard.data.shape != whole.shape
        assert shards and len(jax.local_devices()) == 2
        train(NetTask(), vectors(), starting_config(2, **PLACES), folder / "two", about=about)
        watch.cluster.leave(DONE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
