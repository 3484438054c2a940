"""Who may look at whom among the letters and codes of a page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Order:
    """In which order the positions of a page come: the `rank` of each, from 0, and how many codes,
    the first in that order, are seen by what predicts it: at most `rank`, which it is if nothing is
    said, and fewer where several are printed at once."""

    rank: Int[Array, "B T"]
    num_seen: Int[Array, "B T"] | None = None


def held(boxes: Float[Array, "B S 4"], grid: tuple[int, int]) -> Bool[Array, "B T S"]:
    """True where a code's middle lies inside a letter's box (left, top, right, bottom in codes)."""
    y, x = grid
    places = jnp.stack(jnp.mgrid[:y, :x], axis=-1).reshape(1, y * x, 1, 2) + 0.5
    inside = (places[..., ::-1] > boxes[:, None, :, :2]) & (
        places[..., ::-1] < boxes[:, None, :, 2:]
    )
    return inside.all(axis=-1)


def sight(
    conditions: Mapping[str, Array], grid: tuple[int, int], *, causal: bool, locked: bool
) -> Bool[Array, "B 1 _ _"]:
    """True where a query (second last axis) may look; letters come first, then codes in raster
    order.

    A letter that is not there is never looked at. Bidirectional and unlocked, nothing else is
    hidden, and one row stands for all queries. `causal`: letters look at letters only, a code at
    letters and at codes not after it. `locked`: a code looks only at letters whose boxes hold it; a
    letter at letters of its own text and at codes in its box; codes at codes as before.
    """
    letters = conditions["letters"]
    (B, S), T = letters.shape, grid[0] * grid[1]
    there = jnp.concatenate([letters > 0, jnp.ones((B, T), bool)], axis=1)
    if not causal and not locked:
        return there[:, None, None, :]
    among_letters, of_letters = jnp.ones((B, S, S), bool), jnp.ones((B, T, S), bool)
    if locked:
        texts = conditions["letter_texts"]
        among_letters = texts[:, :, None] == texts[:, None, :]
        of_letters = held(conditions["letter_boxes"], grid)
    of_codes = jnp.zeros((B, S, T), bool) if causal else of_letters.swapaxes(1, 2)
    among_codes = jnp.broadcast_to(raster(T) if causal else jnp.ones((T, T), bool), (B, T, T))
    rows = [
        jnp.concatenate([among_letters, of_codes], axis=2),
        jnp.concatenate([of_letters, among_codes], axis=2),
    ]
    seen = jnp.concatenate(rows, axis=1) & there[:, None, :]
    return (seen | jnp.eye(S + T, dtype=bool))[:, None]  # nobody looks at nothing


def raster(num_positions: int) -> Bool[Array, "T T"]:
    """True where a position looks at itself or an earlier one."""
    return jnp.tril(jnp.ones((num_positions, num_positions), bool))


def sight_in_order(
    conditions: Mapping[str, Array], grid: tuple[int, int], order: Order, *, locked: bool
) -> Bool[Array, "B 1 _ _"]:
    """True where a query may look, of letters, then codes, then what predicts each code, both in
    raster order.

    Letters look at letters and codes at letters as in a causal `sight`; a code looks also at codes
    not after it in `order`; what predicts looks at the letters that its code looks at, at the
    codes that it may see, and at itself, and nobody else looks at it.
    """
    S, T = conditions["letters"].shape[1], grid[0] * grid[1]
    first = sight(conditions, grid, causal=True, locked=locked)[:, 0]
    among_letters, of_letters = first[:, :S, :S], first[:, S:, :S]
    num_seen = order.rank if order.num_seen is None else order.num_seen
    rank = order.rank[:, None, :]
    not_after, seen = rank <= order.rank[:, :, None], rank < num_seen[:, :, None]
    nothing = jnp.zeros_like(seen)
    own = jnp.broadcast_to(jnp.eye(T, dtype=bool), seen.shape)
    rows = [
        jnp.concatenate([among_letters, jnp.zeros((len(first), S, 2 * T), bool)], axis=2),
        jnp.concatenate([of_letters, not_after, nothing], axis=2),
        jnp.concatenate([of_letters, seen, own], axis=2),
    ]
    return jnp.concatenate(rows, axis=1)[:, None]
