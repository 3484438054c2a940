"""Normalisation by root mean square."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class RMSNorm(nnx.Module):
    """y = scale * x / sqrt(mean(x^2) + eps), computed in float32 (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, size: int, *, axis: str = "D", eps: float = 1e-6) -> None:
        self.scale = nnx.Param(jnp.ones((size,)), axes=axis, summed="")
        self.eps = eps

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Each last-axis vector at unit root mean square, times the learnt scale."""
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return (wide * self.scale[...]).astype(x.dtype)
