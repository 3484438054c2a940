"""Pixels as bytes, as pages have them, and as numbers, as networks see them."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def as_float(pixels: UInt8[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
    """0..255 to [-1, 1]."""
    return pixels.astype(jnp.float32) / 127.5 - 1.0


def as_bytes(pixels: Float[Array, "B Y X C"]) -> UInt8[Array, "B Y X C"]:
    """[-1, 1] to 0..255, rounded."""
    return jnp.round((pixels.clip(-1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)
