"""Codes one position after another in raster order: a slow loop that is the specification, and the
one with a cache that agrees with it.

Both draw the codes at position t of a page with `fold_in(page's key, t)`, so a page's codes depend
neither on its neighbours nor on the batch's size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sampling.parallel import LogitsFn
from sampling.policy import Policy, choose

StepFn = Callable[[Int[Array, ""], Int[Array, "B Q"], Any], tuple[Float[Array, "B Q V"], Any]]
"""(position, the codes of the one before it, state) -> (logits of the position, state)."""


def decode_raster_slowly(
    logits_of: LogitsFn,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    keys: Array,
    *,
    policy: Policy = Policy(),  # noqa: B008  # a frozen value
) -> Int[Array, "B y x Q"]:
    """Fill the masked positions in raster order, whole pages anew for every one: obviously
    right."""
    _, y, x, _ = codes.shape
    for t in range(y * x):
        row, column = divmod(t, x)
        logits = logits_of(codes, masked)[:, row, column]
        chosen = _chosen(keys, jnp.array(t), logits, policy)
        here = jnp.where(masked[:, row, column, None], chosen, codes[:, row, column])
        codes = codes.at[:, row, column].set(here)
        masked = masked.at[:, row, column].set(False)
    return codes


def decode_raster(
    step: StepFn,
    state: Any,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    keys: Array,
    *,
    policy: Policy = Policy(),  # noqa: B008  # a frozen value
) -> Int[Array, "B y x Q"]:
    """Fill the masked positions in raster order; the others never change, and are read as they are.

    `state` is what `step` starts with, prompt and cache; `keys` has one key a row. A masked
    position is chosen given all codes before it, so not given the known ones after it. The loop
    ends with the last masked position of the batch.
    """
    B, y, x, Q = codes.shape
    hidden = masked.reshape(B, y * x)
    last = jnp.max(jnp.where(hidden.any(axis=0), jnp.arange(1, y * x + 1), 0))

    def one(t: Int[Array, ""], carry: tuple[Array, Any]) -> tuple[Array, Any]:
        flat, state = carry
        logits, state = step(t, flat[:, jnp.maximum(t - 1, 0)], state)
        chosen = _chosen(keys, t, logits, policy)
        here = jnp.where(hidden[:, t, None], chosen, flat[:, t]).astype(flat.dtype)
        return flat.at[:, t].set(here), state

    flat, _ = jax.lax.fori_loop(0, last, one, (codes.reshape(B, y * x, Q), state))
    return flat.reshape(codes.shape)


def _chosen(
    keys: Array, at: Int[Array, ""], logits: Float[Array, "B Q V"], policy: Policy
) -> Int[Array, "B Q"]:
    here = jax.vmap(lambda key: jax.random.fold_in(key, at))(keys)
    rows = jax.vmap(lambda key, row: choose(key, row, policy))
    return rows(here, logits.astype(jnp.float32))
