"""The codes of `sampling.raster` in fewer passes: many positions are guessed and checked at once.

Since what is drawn at a position depends on its key and on the codes before it alone, a pass over
a window of guesses draws, at every position up to the first wrong guess, the very code that one at
a time would have drawn there. The codes are exact, whatever the guesses are; good ones save passes
(Jacobi iteration, Song et al. 2021; Teng et al. 2024, arXiv 2410.01699, who accept by chance what
need not be the same). A wrong guess is replaced by what was drawn in its place, and so are those
after it, which are the better guesses of the next pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from sampling.picking import Pick

LookFn = Callable[
    [Int[Array, " B"], Int[Array, "B W Q"], Any, Pick], tuple[Int[Array, "B W Q"], Any]
]
"""(first position of the window, the codes of the one before each of it, state, pick) -> (codes of
the window, state). The state's part of the window is written anew."""


def decode_ahead(
    look: LookFn,
    state: Any,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    pick: Pick,
    *,
    window: int,
) -> tuple[Int[Array, "B y x Q"], Int[Array, " B"]]:
    """The masked positions filled as `sampling.raster.decode_raster` fills them, and in how many
    passes of each page; the others never change.

    What `codes` holds where `masked` is True is the first guess. `state` is what `look` starts
    with, prompt and cache; `pick` has one key a row. A window ends with the page at the latest: the
    last ones begin earlier and look again at what is settled.
    """
    B, y, x, Q = codes.shape
    T, window = y * x, min(window, y * x)
    hidden, rows = masked.reshape(B, T), jnp.arange(B)[:, None]
    last = jnp.max(jnp.where(hidden, jnp.arange(1, T + 1), 0), axis=1)

    def goes_on(carry: tuple[Array, Array, Array, Any]) -> Bool[Array, ""]:
        return (carry[1] < last).any()

    def one(carry: tuple[Array, Array, Array, Any]) -> tuple[Array, Array, Array, Any]:
        flat, at, passes, state = carry
        start = jnp.minimum(at, T - window)
        places = start[:, None] + jnp.arange(window)
        before = flat[rows, jnp.maximum(places - 1, 0)]
        chosen, state = look(start, before, state, pick.at(places))
        guessed = flat[rows, places]
        free = hidden[rows, places] & (places >= at[:, None])
        drawn = jnp.where(free[..., None], chosen, guessed).astype(flat.dtype)
        right = (drawn == guessed).all(axis=-1).astype(jnp.int32)
        num_right = jnp.cumprod(right, axis=1).sum(axis=1)
        # all before the first wrong guess were right, so what was drawn in its place is
        reached = start + jnp.minimum(num_right + 1, window)
        passes = passes + (at < last)
        return flat.at[rows, places].set(drawn), jnp.maximum(at, reached), passes, state

    none = jnp.zeros((B,), jnp.int32)
    start = (codes.reshape(B, T, Q), none, none, state)
    flat, _, passes, _ = jax.lax.while_loop(goes_on, one, start)
    return flat.reshape(codes.shape), passes
