"""Finite scalar quantization: each channel is bounded and rounded to a few levels (Mentzer et al.
2023).

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
    """One code a position: the mixed-radix number of its channels' levels, first channel lowest."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        if not levels or min(levels) < 2:
            raise ValueError(f"FSQ levels {levels} must be one or more numbers from 2 up")
        self.levels = tuple(levels)
        self.num_codes = 1
        self.codebook_size = math.prod(levels)
        self.width = len(levels)

    def quantize(self, z: Float[Array, "B y x Z"]) -> Quantized:
        """tanh-bounded, rounded to the nearest level; the gradient passes the rounding
        unchanged."""
        half = (jnp.array(self.levels, z.dtype) - 1) / 2
        bounded = jnp.tanh(z)
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
