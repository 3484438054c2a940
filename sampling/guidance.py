"""Classifier-free guidance (Ho & Salimans 2022, eq. 6, with s = 1 + w): away from what a model says
when it is told nothing.

One batch of twice the rows asks both: the first half is told, the second is not. At a scale of 1
nothing is doubled and the logits are the model's own, to the bit.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def combine(
    told: Float[Array, "*B V"], untold: Float[Array, "*B V"], scale: float
) -> Float[Array, "*B V"]:
    """untold + scale (told - untold), in float32; `told` itself at a scale of 1."""
    if scale == 1:
        return told
    told, untold = told.astype(jnp.float32), untold.astype(jnp.float32)
    return untold + scale * (told - untold)


def doubled(told: Any, untold: Any, scale: float) -> Any:
    """The rows of both trees of arrays in one batch; at a scale of 1 those of `told` alone."""
    if scale == 1:
        return told
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), told, untold)


def told_half(rows: Any, scale: float) -> Any:
    """What `doubled` took for `told`, of a tree of arrays."""
    if scale == 1:
        return rows
    return jax.tree.map(lambda a: a[: a.shape[0] // 2], rows)
