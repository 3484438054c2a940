"""One small quantizer of every kind, and a tiny autoencoder to train it in."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tokenizer.model import QuantizerConfig, make_quantizer
from tokenizer.quantizers.bits import BitsConfig
from tokenizer.quantizers.codebook import CodebookConfig
from tokenizer.quantizers.contract import unit

COSINE = CodebookConfig(size=16, width=4, decay=0.8, restart_below=0.3)
EUCLIDEAN = dataclasses.replace(COSINE, cosine=False)
EMA = dataclasses.replace(EUCLIDEAN, learning="ema")
COSINE_EMA = dataclasses.replace(COSINE, learning="ema")
BITS = BitsConfig(bits=4)

KINDS = {
    "fsq": QuantizerConfig("fsq", (8, 5, 3), 1),
    "product": QuantizerConfig("product", (8,), 6),
    "product of 5 x 4": QuantizerConfig("product", (5, 4), 3),
    "vq": QuantizerConfig("vq", num_codes=1, codebook=EUCLIDEAN),
    "vq cosine": QuantizerConfig("vq", num_codes=1, codebook=COSINE),
    "vq ema": QuantizerConfig("vq", num_codes=1, codebook=EMA),
    "vq rotation": QuantizerConfig(
        "vq", num_codes=1, codebook=dataclasses.replace(EMA, rotation=True)
    ),
    "ibq": QuantizerConfig(
        "ibq", num_codes=1, codebook=dataclasses.replace(COSINE, temperature=0.25, entropy=0.05)
    ),
    "lfq": QuantizerConfig("lfq", num_codes=2, bits=BITS),
    "bsq": QuantizerConfig("bsq", num_codes=2, bits=BITS),
    "product of vq": QuantizerConfig("product", num_codes=2, part="vq", codebook=COSINE_EMA),
    "residual of vq": QuantizerConfig("residual", num_codes=2, part="vq", codebook=EMA),
    "residual of fsq": QuantizerConfig("residual", (8, 5, 3), 2),
    "residual of lfq": QuantizerConfig("residual", num_codes=3, part="lfq", bits=BITS),
    "residual of bsq": QuantizerConfig("residual", num_codes=2, part="bsq", bits=BITS),
    "residual of ibq": QuantizerConfig("residual", num_codes=2, part="ibq", codebook=EUCLIDEAN),
}  # fmt: skip
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def bound(config):
    """What a quantizer does to its input before anything is rounded, by itself as a function."""
    if config.kind == "fsq" or (config.name, config.kind) == ("residual", "lfq"):
        return jnp.tanh
    if config.kind == "bsq" or (config.kind in ("vq", "ibq") and config.codebook.cosine):
        groups = config.num_codes if config.name == "product" else 1
        return lambda z: unit(z.reshape(*z.shape[:-1], groups, -1)).reshape(z.shape)
    return lambda z: z


@functools.cache
def parts(config):
    """(graphdef, params, extra) of a fresh quantizer."""
    made = make_quantizer(config, rngs=nnx.Rngs(0))
    graphdef, params, extra = nnx.split(made, nnx.Param, ...)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(extra)


@functools.cache
def quantize(config, *, training=False):
    """Jitted `(params, extra, z, key) -> (Quantized, extra after, lookup of its codes before)`."""
    graphdef, _, _ = parts(config)

    def run(params, extra, z, key):
        model = nnx.merge(graphdef, params, extra)
        out = model.quantize(z, key=key if training else None)
        after = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
        return out, after, nnx.merge(graphdef, params, extra).lookup(out.codes)

    return jax.jit(run, compiler_options=QUICK)


def trained(config, z, key=None):
    """The statistics after one training batch."""
    _, params, extra = parts(config)
    key = jax.random.key(1) if key is None else key
    return quantize(config, training=True)(params, extra, z, key)[1]


class Autoencoder(nnx.Module):
    """A linear map to the quantizer's channels and one back."""

    def __init__(self, config, width, *, rngs):
        self.quantizer = make_quantizer(config, rngs=rngs)
        Z = self.quantizer.width
        self.down = nnx.Param(jax.random.normal(rngs.params(), (width, Z)) * width**-0.5)
        self.up = nnx.Param(jax.random.normal(rngs.params(), (Z, width)) * Z**-0.5)

    def loss(self, x, key):
        """Mean squared error and the quantizer's term; what it said beside."""
        out = self.quantizer.quantize(x @ self.down[...], key=key)
        return jnp.square(out.values @ self.up[...] - x).mean() + out.loss, out


def batch(step, *, width=12, num_clusters=24):
    """[8 4 4 width] around fixed centres: structure that codes can find."""
    centres = np.random.default_rng(0).normal(size=(num_clusters, width))
    rng = np.random.default_rng(1 + step)
    picked = centres[rng.integers(num_clusters, size=(8, 4, 4))]
    return (picked + 0.1 * rng.normal(size=picked.shape)).astype(np.float32)


@functools.cache
def trainer(config):
    """(first state, jitted `(state, x, n) -> (state, (loss, gradients, Quantized))`).

    Plain momentum: Adam would blow up the rounding in a gradient that is zero, as k-means leaves
    it, into a step.
    """
    model = Autoencoder(config, 12, rngs=nnx.Rngs(1))
    graphdef, params, extra = nnx.split(model, nnx.Param, ...)
    params, extra = nnx.to_pure_dict(params), nnx.to_pure_dict(extra)
    optimizer = optax.sgd(0.1, momentum=0.8)

    def step(state, x, n):
        params, extra, opt = state
        key = jax.random.fold_in(jax.random.key(2), n)

        def objective(params):
            model = nnx.merge(graphdef, params, extra)
            loss, out = model.loss(x, key)
            return loss, (out, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param))))

        (loss, (out, moved)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        updates, opt = optimizer.update(grads, opt)
        return (optax.apply_updates(params, updates), moved, opt), (loss, grads, out)

    state = params, extra, optimizer.init(params)
    return state, jax.jit(step, compiler_options=QUICK)
