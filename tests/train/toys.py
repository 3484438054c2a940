"""Small things to train, shared by the loop's tests and by the process they kill."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from layers.block import Stack
from layers.einsum import Einsum
from layers.norm import RMSNorm
from tokenizer.backbones import BackboneConfig
from tokenizer.model import QuantizerConfig, TokenizerConfig
from tokenizer.task import TokenizerTask
from train.checkpoint.retention import CheckpointConfig
from train.data.batching import batches
from train.optimizer import OptimizerConfig
from train.plan import LoopConfig

WIDTH = 16


class Layer(nnx.Module):
    """x + down(tanh(up(norm(x))))."""

    def __init__(self, *, rngs):
        sizes = {"D": WIDTH, "F": 2 * WIDTH}
        self.norm = RMSNorm(WIDTH)
        self.up = Einsum("BD,DF->BF", sizes, rngs=rngs)
        self.down = Einsum("BF,FD->BD", sizes, rngs=rngs)

    def __call__(self, x):
        return x + self.down(jnp.tanh(self.up(self.norm(x))))


class Count(nnx.Variable):
    """What the loop must carry although no gradient moves it."""


class Net(nnx.Module):
    """Every kind of thing a state may hold: a stack, a list, a vector and a variable that is no
    parameter."""

    def __init__(self, *, rngs):
        self.stack = Stack(lambda key: Layer(rngs=key), 2, rngs=rngs)
        self.listed = nnx.List([Layer(rngs=rngs)])
        self.fixed = Einsum("BD,DF->BF", {"D": WIDTH, "F": WIDTH}, rngs=rngs)
        self.seen = Count(jnp.zeros(WIDTH))

    def __call__(self, x):
        x, _ = self.stack.scan(lambda layer, x, _: (layer(x), None), x)
        return self.fixed(self.listed[0](x))


@dataclasses.dataclass(frozen=True)
class NetTask:
    """Learn to shift a vector by one, under noise that only the step's key decides; a scalar turns
    into NaN at step `bad_from`, and the loss at each of `poisoned`."""

    bad_from: int = 0
    poisoned: tuple[int, ...] = ()

    def init(self, rngs):
        return Net(rngs=rngs)

    def loss(self, model, batch, key):
        model.seen[...] = model.seen[...] + jnp.abs(batch["x"]).sum(axis=0)
        y = model(batch["x"])
        noise = 0.1 * jax.random.normal(key, y.shape)
        bad = self.bad_from and batch["step"][0] >= self.bad_from
        bias = jnp.where(bad, jnp.nan, y.mean())
        loss = jnp.mean(jnp.square(y - batch["y"] + noise))
        poisoned = jnp.isin(batch["step"][0], jnp.array(self.poisoned, jnp.int32))
        return jnp.where(poisoned, jnp.nan, 1.0) * loss, {"bias": bias}

    def group(self, path):
        return "frozen" if path[0] == "fixed" else "hidden"

    def probes(self):
        return {"apply": lambda model, x: model(x)}


def net_config(num_steps, **changes):
    """One Muon group for everything, its vectors too."""
    optimizers = {
        "hidden": OptimizerConfig("muon", 0.01, schedule="cosine", warmup_steps=2, clip=1.0,
                                  consistent_rms=0.2),
    }  # fmt: skip
    return loop_config(num_steps, **{"optimizers": optimizers, **changes})


class Numbered:
    """Records that know their place, so that a toy can misbehave at a step."""

    def __init__(self, count):
        self.x = np.random.default_rng(0).normal(size=(count, WIDTH)).astype(np.float32)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "y": np.roll(self.x[i], 1), "step": np.int32(i // 8 + 1)}


def vectors():
    """1024 vectors in order, 8 a batch: step n has records 8 (n - 1) to 8 n."""
    return batches([Numbered(1024)], dict, batch_size=8, seed=1, shuffle=False)


def tokenizer_task():
    backbone = BackboneConfig(width=32, hidden=64)
    return TokenizerTask(TokenizerConfig(backbone, QuantizerConfig("product", (8,), 12)))


def loop_config(num_steps, **changes):
    optimizers = {
        "hidden": OptimizerConfig("muon", 0.02, schedule="linear", clip=1.0),
        "rest": OptimizerConfig("adamw", 2e-3, schedule="cosine", warmup_steps=3),
    }
    fields = {
        "optimizers": optimizers,
        "checkpoint": CheckpointConfig(5),
        "log_every_steps": 1,
        "ema_decay": 0.9,
    }
    return LoopConfig(num_steps, **{**fields, **changes})


def pages(batch_size=8):
    """64 pages of 16 px, flat colours in 4 px blocks."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (64, 4, 4, 3), dtype=np.uint8)
    records = list(blocks.repeat(4, axis=1).repeat(4, axis=2))
    return batches([records], lambda pixels: {"pixels": pixels}, batch_size=batch_size, seed=1)
