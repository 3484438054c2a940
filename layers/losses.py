"""Losses that more than one model uses. Every reduction is in float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def cross_entropy(
    logits: Float[Array, "*B V"], targets: Int[Array, "*B"], mask: Bool[Array, "*B"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean negative log-likelihood in nats and the share of argmax hits, where `mask` is True."""
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    nll = jax.nn.logsumexp(logits, axis=-1) - picked
    weight = mask.astype(jnp.float32)
    total = jnp.maximum(weight.sum(), 1.0)
    hits = (logits.argmax(axis=-1) == targets) * weight
    return (nll * weight).sum() / total, hits.sum() / total


def reconstruction(
    error: Float[Array, "*B"], *, l1: float, l2: float, charbonnier: float, eps: float = 1e-3
) -> Float[Array, ""]:
    """l1 |e| + l2 e^2 + charbonnier sqrt(e^2 + eps^2), averaged over everything."""
    square = jnp.square(error)
    terms = l1 * jnp.abs(error) + l2 * square + charbonnier * jnp.sqrt(square + eps * eps)
    return terms.mean()
