"""Codes one position after another in raster order: a slow loop that is the specification, and the
one with a cache that agrees with it.

Both draw the codes at position t of a page with `fold_in(page's key, t)`, so a page's codes depend
neither on its neighbours nor on the batch's size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from sampling.loops import Index, Loop, Shown
from sampling.parallel import WriteFn
from sampling.picking import Pick

StepFn = Callable[[Int[Array, ""], Int[Array, "B Q"], Any, Pick], tuple[Int[Array, "B Q"], Any]]
"""(position, the codes of the one before it, state, pick) -> (codes of the position, state)."""


def decode_raster_slowly(
    write: WriteFn,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    pick: Pick,
) -> Int[Array, "B y x Q"]:
    """Fill the masked positions in raster order, whole pages anew for every one: obviously
    right."""
    B, y, x, _ = codes.shape
    for t in range(y * x):
        row, column = divmod(t, x)
        everywhere = jnp.full((B, y * x), t)  # what is picked elsewhere is thrown away
        chosen = write(codes, masked, pick.at(everywhere))[0][:, row, column]
        here = jnp.where(masked[:, row, column, None], chosen, codes[:, row, column])
        codes = codes.at[:, row, column].set(here)
        masked = masked.at[:, row, column].set(False)
    return codes


def decode_raster(
    step: StepFn,
    state: Any,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    pick: Pick,
) -> Int[Array, "B y x Q"]:
    """Fill the masked positions in raster order; the others never change, and are read as they are.

    `state` is what `step` starts with, prompt and cache; `pick` has one key a row. A masked
    position is chosen given all codes before it, so not given the known ones after it. The loop
    ends with the last masked position of the batch.
    """
    return raster_loop(step, lambda: state, codes, masked, pick).run()


def raster_loop(
    step: StepFn,
    start: Callable[[], Any],
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    pick: Pick,
) -> Loop:
    """`decode_raster`, a pass for each position, with a state that `start` makes."""
    B, y, x, Q = codes.shape
    hidden = masked.reshape(B, y * x)
    last = jnp.max(jnp.where(hidden.any(axis=0), jnp.arange(1, y * x + 1), 0))

    def one(t: Int[Array, ""], carry: tuple[Array, Any]) -> tuple[Array, Any]:
        flat, state = carry
        chosen, state = step(t, flat[:, jnp.maximum(t - 1, 0)], state, pick.at(t))
        here = jnp.where(hidden[:, t, None], chosen, flat[:, t]).astype(flat.dtype)
        return flat.at[:, t].set(here), state

    def shown(i: Index, carry: tuple[Array, Any]) -> Shown:
        known = ~hidden | (jnp.arange(y * x) < i)
        return carry[0].reshape(codes.shape), known.reshape(masked.shape)

    begun = lambda: (codes.reshape(B, y * x, Q), start())  # noqa: E731
    passes = lambda: jnp.where(hidden, jnp.arange(1, y * x + 1), 0).max(axis=1)  # noqa: E731
    return Loop(last, begun, one, shown, passes)
