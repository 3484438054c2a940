"""Rotary positions in one or more dimensions (Su et al. 2021; pairs are half-split as in Llama).

A token whose position is zero in every dimension is not rotated: that is the place of tokens
without a place, so what has one starts counting at 1.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Frequencies stretched for texts longer than those that were learnt, as in Llama 3.1 (its
    `apply_scaling`; `rope_type` llama3 elsewhere).

    A pair that turns fewer than `low_turns` times within `original_length` positions turns `factor`
    times slower, one that turns more than `high_turns` times as before, and between the two it is
    mixed linearly. A `factor` of 1 leaves all as they are. Llama 3.1 has 8, Llama 3.2 has 32.
    """

    factor: float = 1.0
    low_turns: float = 1.0
    high_turns: float = 4.0
    original_length: int = 8192

    def __post_init__(self) -> None:
        if self.factor < 1 or self.original_length < 1 or not 0 < self.low_turns < self.high_turns:
            raise ValueError(
                f"{self} is no scaling: factor and original_length are 1 or more, and low_turns is "
                "above 0 and below high_turns"
            )

    def __call__(self, frequencies: Float[Array, " P"]) -> Float[Array, " P"]:
        """The frequencies, in radians a position, that are turned by."""
        if self.factor == 1:
            return frequencies
        turns = self.original_length * frequencies / (2 * math.pi)
        kept = jnp.clip((turns - self.low_turns) / (self.high_turns - self.low_turns), 0, 1)
        return (1 - kept) * frequencies / self.factor + kept * frequencies


def rotations(
    positions: Float[Array, "B T A"],
    head_size: int,
    *,
    theta: float = 10000.0,
    scaling: RopeScaling = RopeScaling(),  # a frozen value
) -> tuple[Float[Array, "B T 1 P"], Float[Array, "B T 1 P"]]:
    """Cosines and sines of the `P = head_size / 2` pairs; the A dimensions share the pairs equally.

    Raises `ValueError` if they cannot be shared.
    """
    num_axes = positions.shape[-1]
    if head_size % (2 * num_axes):
        raise ValueError(f"head size {head_size} is not a multiple of {2 * num_axes}")
    pairs = head_size // 2 // num_axes
    frequencies = scaling(theta ** (-jnp.arange(pairs, dtype=jnp.float32) / pairs))
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
