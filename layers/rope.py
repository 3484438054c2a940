"""Rotary positions in one or more dimensions (Su et al. 2021; pairs are half-split as in Llama).

A token whose position is zero in every dimension is not rotated: that is the place of tokens
without a place, so what has one starts counting at 1.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def rotations(
    positions: Float[Array, "B T A"], head_size: int, *, theta: float = 10000.0
) -> tuple[Float[Array, "B T 1 P"], Float[Array, "B T 1 P"]]:
    """Cosines and sines of the `P = head_size / 2` pairs; the A dimensions share the pairs equally.

    Raises `ValueError` if they cannot be shared.
    """
    num_axes = positions.shape[-1]
    if head_size % (2 * num_axes):
        raise ValueError(f"head size {head_size} is not a multiple of {2 * num_axes}")
    pairs = head_size // 2 // num_axes
    frequencies = theta ** (-jnp.arange(pairs, dtype=jnp.float32) / pairs)
    angles = (positions[..., None] * frequencies).reshape(*positions.shape[:-1], 1, -1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "B T N H"],
    rotations: tuple[Float[Array, "B T 1 P"], Float[Array, "B T 1 P"]],
) -> Float[Array, "B T N H"]:
    """Turn each pair (x_i, x_{i + H/2}) by its angle, in float32."""
    cos, sin = rotations
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
