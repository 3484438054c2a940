"""What the loop itself costs a step: little of the host's time, and no second compilation."""

import dataclasses
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.train.toys import WIDTH, Net, NetTask, net_config, vectors
from train import mesh as meshes
from train.checkpoint import CheckpointConfig
from train.feeding import place_batch
from train.log import Evaluation
from train.loop import train
from train.optimizer import OptimizerConfig
from train.plan import plan


def test_a_step_of_the_loop_costs_little_of_the_host(tmp_path, monkeypatch):
    devices, spent_s = jax.devices(), []
    monkeypatch.setattr(jax, "devices", lambda *_: devices[:1])

    def evaluate(step, probes):
        spent_s.append(time.thread_time())
        return Evaluation({})

    optimizers = {"hidden": OptimizerConfig("adamw", 0.01)}
    config = net_config(
        600, optimizers=optimizers, mesh={"data": 1}, log_every_steps=20, eval_every_steps=100,
        checkpoint=CheckpointConfig(10_000),
    )  # fmt: skip
    train(NetTask(), vectors(), config, tmp_path, evaluate=evaluate)
    # The toy's step is in it. The least of several, since other processes empty the caches.
    assert 0 < min(b - a for a, b in itertools.pairwise(spent_s)) / 100 < 4e-3


class Weak(Net):
    """A parameter that was filled with a number of Python's has a weak type."""

    def __init__(self, *, rngs):
        super().__init__(rngs=rngs)
        self.bias = nnx.Param(jnp.full((WIDTH,), 0.5), axes="D", summed="")

    def __call__(self, x):
        return super().__call__(x) + self.bias[...]


@dataclasses.dataclass(frozen=True)
class WeakTask(NetTask):
    def init(self, rngs):
        return Weak(rngs=rngs)


def test_a_step_is_compiled_once(tmp_path):
    assert WeakTask().init(nnx.Rngs(0)).bias[...].weak_type
    config = net_config(9, optimizers={"hidden": OptimizerConfig("adamw", 0.01)}, ema_decay=0.9)
    mesh = meshes.build({"data": 1}, jax.devices()[:1])
    with jax.set_mesh(mesh):
        planned = plan(WeakTask(), config, mesh)
        state = planned.materialise()
        assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, planned.abstract)))
        for n in range(3):
            state, _ = planned.step(state, place_batch(vectors()[n], mesh, config.rules))
    assert planned.step._cache_size() == 1
    assert int(state.step) == 3 and np.isfinite(state.params["bias"]).all()
