"""Classifier-free guidance (Ho & Salimans 2022, eq. 6, with s = 1 + w): away from what a model says
when it is told nothing.

One batch of twice the rows asks both: the first half is told, the second is not. At a scale of 1
nothing is doubled and the logits are the model's own, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sampling.raster import StepFn


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


def guided_logits(
    logits_of: Callable[..., Float[Array, "*B V"]], scale: float
) -> Callable[..., Float[Array, "*B V"]]:
    """A function of B rows around one of 2 B rows whose second half is told nothing."""
    if scale == 1:
        return logits_of

    def both(*rows: Array) -> Float[Array, "*B V"]:
        told, untold = jnp.split(logits_of(*doubled(rows, rows, scale)), 2)
        return combine(told, untold, scale)

    return both


def guided_step(step: StepFn, scale: float) -> StepFn:
    """The same for a step of `decode_raster`, whose state is of 2 B rows."""
    if scale == 1:
        return step

    def both(at: Array, before: Array, state: Any) -> tuple[Array, Any]:
        logits, state = step(at, doubled(before, before, scale), state)
        told, untold = jnp.split(logits, 2)
        return combine(told, untold, scale), state

    return both
