"""Classifier-free guidance (Ho & Salimans 2022, eq. 6, with s = 1 + w): away from what a model says
when it is told nothing.

One batch of twice the rows asks both: each row that is told has the one that is not after it, so
that on a mesh both are on one device and nothing moves between devices to combine them. At a scale
of 1 nothing is doubled and the logits are the model's own, to the bit.
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
    """The rows of both trees of arrays in one batch, in turn; at a scale of 1 those of `told`
    alone."""
    if scale == 1:
        return told
    pair = lambda a, b: jnp.stack([a, b], axis=1).reshape(2 * len(a), *a.shape[1:])  # noqa: E731
    return jax.tree.map(pair, told, untold)


def told_half(rows: Any, scale: float) -> Any:
    """What `doubled` took for `told`, of a tree of arrays."""
    return rows if scale == 1 else halves(rows)[0]


def halves(rows: Any) -> tuple[Any, Any]:
    """What `doubled` took for `told` and for `untold`."""
    half = lambda i: jax.tree.map(lambda a: a.reshape(-1, 2, *a.shape[1:])[:, i], rows)  # noqa: E731
    return half(0), half(1)
