"""From logits to a choice: greedy, or sampled at a temperature from the likeliest."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class Policy:
    """Temperature 0 is greedy. `top_k` 0 and `top_p` 1 cut nothing off; `min_p` is a share of the
    best.

    `ordered` says that near indices mean near values: the greedy choice is then the median of the
    distribution, which where the model is sure is the best one, and where it is not (a photograph)
    lies in the middle of what may be, instead of anywhere.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    ordered: bool = False

    def __post_init__(self) -> None:
        sound = {
            "temperature": self.temperature >= 0,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
        }
        for name, holds in sound.items():
            if not holds:
                raise ValueError(f"{name} {getattr(self, name)} would leave nothing to choose from")

    @property
    def truncates(self) -> bool:
        """Whether the choice depends on what else may be chosen, and not only on which of it is
        best: whether it may change when something that it is not is no longer allowed."""
        if self.temperature == 0:
            return self.ordered
        return bool(self.top_k or self.min_p or self.top_p < 1)


def kth_largest(logits: Float[Array, "*B V"], k: int) -> Float[Array, "*B 1"]:
    """The k-th largest of each row, found bit by bit by counting: a sort takes longer.

    A float's bits, those of a negative one turned round, are in its order as a whole number.
    """
    bits = jax.lax.bitcast_convert_type(logits.astype(jnp.float32), jnp.uint32)
    negative = bits >> 31 == 1
    ordered = jnp.where(negative, ~bits, bits | jnp.uint32(1 << 31))

    def one(i: Int[Array, ""], found: Array) -> Array:
        tried = found | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
        enough = (ordered >= tried).sum(axis=-1, keepdims=True) >= k
        return jnp.where(enough, tried, found)

    found = jax.lax.fori_loop(0, 32, one, jnp.zeros((*logits.shape[:-1], 1), jnp.uint32))
    back = jnp.where(found >> 31 == 1, found & jnp.uint32((1 << 31) - 1), ~found)
    return jax.lax.bitcast_convert_type(back, jnp.float32)


def truncate(logits: Float[Array, "*B V"], policy: Policy) -> Float[Array, "*B V"]:
    """Logits with what the policy cuts off at minus infinity. Always leaves the best one."""
    if policy.top_k:
        floor = kth_largest(logits, min(policy.top_k, logits.shape[-1]))
        logits = jnp.where(logits < floor, -jnp.inf, logits)
    if policy.min_p:
        floor = logits.max(axis=-1, keepdims=True) + jnp.log(policy.min_p)
        logits = jnp.where(logits < floor, -jnp.inf, logits)
    if policy.top_p < 1:
        ordered = -jnp.sort(-logits, axis=-1)
        share = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(share, axis=-1) - share
        kept = jnp.where(before < policy.top_p, ordered, jnp.inf)
        logits = jnp.where(logits < kept.min(axis=-1, keepdims=True), -jnp.inf, logits)
    return logits


def choose(key: Array, logits: Float[Array, "*B V"], policy: Policy) -> Int[Array, "*B"]:
    """One index a row; minus infinity is never chosen while anything else is there."""
    if policy.temperature == 0 and policy.ordered:
        below = jnp.cumsum(jax.nn.softmax(logits, axis=-1), axis=-1) < 0.5
        return jnp.minimum(below.sum(axis=-1), logits.shape[-1] - 1)
    if policy.temperature == 0:
        return logits.argmax(axis=-1)
    return jax.random.categorical(key, truncate(logits / policy.temperature, policy), axis=-1)
