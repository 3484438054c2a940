"""Finite scalar quantization: each channel is bounded and rounded to a few levels (Mentzer et al.
2023, arXiv 2309.15505, section 3.1).

Channel i of L_i levels becomes round(tanh(z_i) (L_i - 1) / 2 + (L_i - 1) / 2), a digit from 0 to
L_i - 1, which stands for a value from -1 to 1. The alphabet is the product of the L_i; nothing is
learnt, so nothing can collapse.

Where we differ: even level counts use half-integer levels instead of the paper's shifted tanh, so
that the levels are symmetric around zero and the extreme ones are reached.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from tokenizer.quantizers.contract import Quantized


class FSQ(nnx.Module):
    """One code a position: the mixed-radix number of its channels' levels, first channel lowest.

    `bounded` says that inputs lie in [-1, 1] already: they are clipped there instead of squashed.
    """

    def __init__(self, levels: tuple[int, ...], *, bounded: bool = False) -> None:
        if not levels or min(levels) < 2:
            raise ValueError(f"FSQ levels {levels} must be one or more numbers from 2 up")
        self.levels = tuple(levels)
        self.bounded = bounded
        self.num_codes = 1
        self.codebook_size = math.prod(levels)
        self.width = len(levels)

    def quantize(self, z: Float[Array, "B y x Z"], *, key: Array | None = None) -> Quantized:
        """Rounded to the nearest level; the gradient passes the rounding unchanged. `key` is
        unused."""
        half = (jnp.array(self.levels, z.dtype) - 1) / 2
        bounded = z if self.bounded else jnp.tanh(z)
        digits = jnp.clip(jnp.round(bounded * half + half), 0, 2 * half)
        values = bounded + jax.lax.stop_gradient(digits / half - 1 - bounded)
        radix = jnp.array(np.cumprod((1, *self.levels[:-1])), jnp.int32)
        codes = (digits.astype(jnp.int32) * radix).sum(axis=-1, keepdims=True)
        return Quantized(values, codes, jnp.zeros((), jnp.float32))

    def lookup(self, codes: Int[Array, "B y x Q"]) -> Float[Array, "B y x Z"]:
        """Levels in [-1, 1] of each code."""
        radix = jnp.array(np.cumprod((1, *self.levels[:-1])), jnp.int32)
        levels = jnp.array(self.levels, jnp.int32)
        return 2.0 * ((codes // radix) % levels) / (levels - 1) - 1.0
