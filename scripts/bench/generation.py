"""Codes a second, one code at a time, with guidance and top-k: ours, and what must be moved."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from decoder.conditioning import ConditioningConfig
from decoder.config import DecoderConfig
from decoder.task import DecoderTask
from layers.block import BlockConfig
from layers.quantized import narrowed
from sampling.policy import Policy
from sampling.printing import Press, print_codes


@dataclasses.dataclass(frozen=True)
class Shape:
    """A class-conditional GPT of codes, as LlamaGen's (Sun et al. 2024, table 1)."""

    width: int
    num_layers: int
    num_heads: int
    codebook_size: int = 16384
    side: int = 16  # codes of a page's side
    guidance: float = 4.0
    top_k: int = 2000

    @property
    def hidden(self) -> int:
        """Of the SwiGLU: 8/3 of the width, up to a multiple of 256."""
        return -(-(8 * self.width // 3) // 256) * 256

    @property
    def num_codes(self) -> int:
        """Of a page."""
        return self.side**2

    @property
    def weights_read(self) -> int:
        """Numbers that a step reads of the weights: layers and head, for tables are looked up."""
        layer = 4 * self.width**2 + 3 * self.width * self.hidden + 2 * self.width
        return self.num_layers * layer + self.width * (1 + self.codebook_size)

    def of(self, num_codes: int) -> Shape:
        """The same for square pages of so many codes; raises `ValueError` unless they are that."""
        side = math.isqrt(num_codes)
        if side * side != num_codes or not side:
            raise ValueError(f"{num_codes} codes are no square page: give 64, 256 or the like")
        return dataclasses.replace(self, side=side)

    @property
    def num_params(self) -> int:
        """All of them, tables too."""
        return self.weights_read + self.width * (self.codebook_size + 1001)

    def step_bytes(self, batch: int, itemsize: int = 4, *, weights: str = "float32") -> float:
        """Bytes that a step must move in the middle of a page: weights once, and the keys and
        values so far of both halves of the guided batch."""
        cache = 2 * 2 * batch * self.num_layers * self.width * (self.num_codes + 1) / 2
        return _BYTES.get(weights, itemsize) * self.weights_read + itemsize * cache

    def step_flops(self, batch: int) -> float:
        """2 a weight and row, and attention over half a page."""
        attention = 4 * self.num_layers * self.width * (self.num_codes + 1) / 2
        return 2 * batch * (2 * self.weights_read + attention)


_BYTES = {"bfloat16": 2, "int8": 1}
SHAPES = {
    "b": Shape(768, 12, 12), "l": Shape(1024, 24, 16), "xl": Shape(1280, 36, 20),
    "3b": Shape(3200, 24, 32), "tiny": Shape(64, 2, 2, codebook_size=512, side=4, top_k=50),
}  # fmt: skip
"""LlamaGen's, and one for tests."""


def decoder_of(shape: Shape, *, dtype: str = "float32") -> DecoderTask:
    """Our decoder of that shape, which leaves out a tenth of the classes when it learns."""
    size = shape.width // shape.num_heads
    blocks = BlockConfig(
        shape.width, shape.num_layers, shape.num_heads, shape.num_heads, size, shape.hidden,
        dtype=dtype, norm_eps=1e-5,
    )  # fmt: skip
    config = DecoderConfig(
        blocks, 1, shape.codebook_size, ConditioningConfig(glyphs="off"), objective="causal",
        num_classes=1000, rope_theta=10000.0,
    )  # fmt: skip
    return DecoderTask(config, drop_blueprint=0.1)


def drawn_at(shapes: Any, *, seed: int, dtype: str) -> Any:
    """Random arrays of a tree's shapes, made where they are to lie."""
    leaves, tree = jax.tree.flatten(shapes)
    draw = jax.jit(lambda key, like: 0.02 * jax.random.normal(key, like, dtype), static_argnums=1)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(tree, [draw(k, x.shape) for k, x in zip(keys, leaves, strict=True)])


def ours(
    shape: Shape, batch: int, *, seed: int = 0, dtype: str = "float32", weights: str = "float32"
) -> Callable[[], np.ndarray]:
    """A function that prints `batch` pages of random weights, compiled: codes [B y x Q]. `dtype` is
    that of weights, activations and cache, `weights` other than float32 that of kernels alone
    (`layers.quantized.WEIGHTS`)."""
    task = decoder_of(shape, dtype=dtype)
    module = nnx.eval_shape(lambda: task.init(nnx.Rngs(0)))
    graphdef, params = nnx.split(module)
    drawn = drawn_at(nnx.to_pure_dict(params), seed=seed, dtype=dtype)
    drawn, _ = narrowed(module, drawn, weights)
    press = Press(Policy(temperature=1.0, top_k=shape.top_k), guidance=shape.guidance)

    def run(params: Any, classes: Any, keys: Any) -> Any:
        model = nnx.merge(graphdef, params)
        probes = {name: functools.partial(f, model) for name, f in task.probes().items()}
        codes = jnp.zeros((batch, shape.side, shape.side, 1), jnp.int32)
        masked = jnp.ones(codes.shape[:3], bool)
        return print_codes(probes, codes, masked, {"classes": classes}, keys, press=press)

    classes, keys = jnp.arange(batch), jax.random.split(jax.random.key(seed), batch)
    program = jax.jit(run).lower(drawn, classes, keys).compile()
    return lambda: np.asarray(program(drawn, classes, keys))
