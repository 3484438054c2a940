"""Codes in an order that is given, a group of positions a pass: a slow loop that is the
specification, and the one with a cache that agrees with it.

The groups grow by a cosine; or the first is of all positions that are certain beforehand, however
many, and those that a page has left come in even groups, in as many passes as it needs.

Known positions come first in the order, so that all of them are context. Both loops draw the codes
at position p of a page with `fold_in(page's key, p)`, so a page's codes depend neither on its
neighbours nor on the batch's size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sampling.loops import Index, Loop, Shown
from sampling.parallel import Written, require_passes
from sampling.picking import Pick

ORDERS = ("random", "raster", "blueprint", "strokes")
CERTAIN_FIRST = ORDERS[2:]
_WHOLE = 1 << 16  # shares of a page are whole numbers of these, so that counts are exact
_ORDER = 0  # folded into a page's key, twice

WriteInOrderFn = Callable[
    [Int[Array, "B y x Q"], Int[Array, "B T"], Int[Array, "B T"], Pick], Written
]
"""(codes, their ranks, how many of the first are seen where one is written, pick) -> (codes of
every position, the logits they were picked from)."""

AdvanceFn = Callable[
    [Int[Array, " B"], Int[Array, " B"], Int[Array, "B G Q"], Any, Pick],
    tuple[Int[Array, "B G Q"], Any],
]
"""(first slot that the state has not read, first slot to write, the codes from the former on,
state, pick) -> (codes from the latter on, state). Slot r is the position of rank r. A single
pass, or a first one of certain positions, is handed no codes and writes as many as there are slots;
one after certain positions is handed those of all slots."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The place of each position in the order, and in how many passes they are printed at most.

    `num_certain` masked ones, the first in the order, are printed in the first pass, the others in
    even groups, `num_passes` being enough for whole pages of them; without it groups grow by a
    cosine. Raises `ValueError` for no passes, and for a single one that is to be of certain
    positions.
    """

    rank: Int[Array, "B T"]
    num_passes: int
    num_certain: Int[Array, " B"] | None = None

    def __post_init__(self) -> None:
        require_passes(self.num_passes)
        if self.num_certain is not None and self.num_passes < 2:
            raise ValueError("num_passes 1 leaves none for what is not certain: raise it to 2")

    @property
    def size(self) -> int:
        """The most positions that a pass prints, but for a first one of certain positions."""
        num_positions = self.rank.shape[1]
        if self.num_certain is None:
            return largest_group(num_positions, self.num_passes)
        return -(-num_positions // (self.num_passes - 1))

    def left(self, total: Int[Array, " B"], i: Int[Array, ""] | int) -> Int[Array, " B"]:
        """How many of `total` masked positions are left before pass i."""
        if self.num_certain is None:
            return num_left(total, i, self.num_passes)
        later = total - self.num_certain - (jnp.asarray(i) - 1) * self.size
        return jnp.where(jnp.asarray(i) == 0, total, jnp.maximum(later, 0))

    def end(self, total: Int[Array, " B"]) -> Int[Array, ""] | int:
        """The pass before which all pages are done."""
        if self.num_certain is None:
            return self.num_passes
        return 1 + jnp.max(-(-(total - self.num_certain) // self.size))

    def passes(self, total: Int[Array, " B"]) -> Int[Array, " B"]:
        """How many passes print something of a page with so many masked positions."""
        left = jax.vmap(lambda i: self.left(total, i))(jnp.arange(self.num_passes + 1))
        return (left[:-1] > left[1:]).sum(axis=0)


def ranks(priority: Float[Array, "B T"], masked: Bool[Array, "B y x"]) -> Int[Array, "B T"]:
    """The place of each position in the order: known ones, then those of least `priority`."""
    last = jnp.where(masked.reshape(priority.shape), priority, -jnp.inf)
    return jnp.argsort(jnp.argsort(last, axis=1), axis=1)


def priorities(order: str, keys: Array, num_positions: int) -> Float[Array, "B T"]:
    """Of an order that needs no blueprint: `raster`, or `random`, drawn by each page's key.

    Raises `ValueError` for another.
    """
    if order == "raster":
        steps = jnp.arange(num_positions, dtype=jnp.float32)
        return jnp.broadcast_to(steps, (len(keys), num_positions))
    if order == "random":
        own = Pick(keys).at(num_positions).at(_ORDER).keys  # no position has this number
        return jax.vmap(lambda key: jax.random.uniform(key, (num_positions,)))(own)
    known = ", ".join(name for name in ORDERS if name not in CERTAIN_FIRST)
    raise ValueError(f"order {order!r} is not known; there is: {known}")


def _shares(num_passes: int) -> np.ndarray:
    """What share of the masked positions is left before each pass, and after the last: cosine."""
    shares = np.cos(0.5 * np.pi * np.arange(num_passes + 1) / num_passes)
    return np.floor(_WHOLE * shares + 1e-6).astype(np.int32)


def num_left(total: Int[Array, " B"], i: Int[Array, ""] | int, num_passes: int) -> Int[Array, " B"]:
    """How many of `total` masked positions are left before pass i: a share cos(pi i / 2n) rounded
    down, but every pass prints one while there are some."""
    share = jnp.asarray(_shares(num_passes))[i]
    # total * share would not fit in 32 bits
    high, low = total // 256, total % 256
    cosine = (high * share + (low * share) // 256) // (_WHOLE // 256)
    return jnp.minimum(cosine, jnp.maximum(total - i, 0))


def largest_group(num_positions: int, num_passes: int) -> int:
    """The most positions that any pass prints, however many are masked."""
    if num_passes >= num_positions:
        return 1
    return -(-num_positions * int(-np.diff(_shares(num_passes)).min()) // _WHOLE)


def decode_in_order_slowly(
    write: WriteInOrderFn,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    pick: Pick,
    schedule: Schedule,
) -> Int[Array, "B y x Q"]:
    """Fill the masked positions, whole pages anew for every pass: obviously right."""
    rank, num_passes = schedule.rank, schedule.num_passes
    B, T = rank.shape
    total = masked.sum(axis=(1, 2))
    places = jnp.broadcast_to(jnp.arange(T), (B, T))
    for i in range(num_passes):
        now, after = (T - schedule.left(total, j)[:, None] for j in (i, i + 1))
        num_seen = jnp.broadcast_to(now, (B, T))
        chosen, _ = write(codes, rank, num_seen, pick.at(places))
        group = ((rank >= now) & (rank < after)).reshape(masked.shape)
        codes = jnp.where(group[..., None], chosen, codes)
    return codes


def decode_in_order(
    advance: AdvanceFn,
    state: Any,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    pick: Pick,
    schedule: Schedule,
) -> Int[Array, "B y x Q"]:
    """Fill the masked positions; the others never change. `pick` has one key a row.

    `state` is what `advance` starts with, prompt and known codes; its groups are as large as
    `Schedule.size` says, and what one has beyond the positions of its pass is not kept.
    """
    return loop_in_order(advance, lambda: state, codes, masked, pick, schedule).run()


def loop_in_order(
    advance: AdvanceFn,
    start: Callable[[], Any],
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    pick: Pick,
    schedule: Schedule,
) -> Loop:
    """`decode_in_order` as a loop, with a state that `start` makes."""
    rank, size = schedule.rank, schedule.size
    B, T = rank.shape
    total, order = masked.sum(axis=(1, 2)), jnp.argsort(rank, axis=1)
    take = lambda rows, index: jnp.take_along_axis(rows, index[..., None], axis=1)  # noqa: E731

    def one(
        i: Index, carry: tuple[Array, Array, Any], sizes: tuple[int, int] = (size, size)
    ) -> tuple[Array, Array, Any]:
        slots, at, state = carry
        now, after = (T - schedule.left(total, j) for j in (i, i + 1))
        read, written = (
            jnp.minimum(first[:, None] + jnp.arange(n), T - 1)
            for first, n in zip((at, now), sizes, strict=True)
        )
        places = jnp.take_along_axis(order, written, axis=1)
        chosen, state = advance(at, now, take(slots, read), state, pick.at(places))
        rows = jnp.arange(B)[:, None]
        fresh = now[:, None] + jnp.arange(sizes[1]) < after[:, None]
        slot = jnp.where(fresh, written, T)  # past the end, so dropped
        slots = slots.at[rows, slot].set(chosen.astype(slots.dtype), mode="drop")
        return slots, now, state

    # a single pass, or a first one of certain positions, has nothing to read yet; the one after
    # certain positions reads all that these may be
    whole = schedule.num_passes == 1 or schedule.num_certain is not None
    wide = [(0, T)] * whole + [(T, size)] * (schedule.num_certain is not None)

    def begun() -> tuple[Array, Array, Any]:
        carry = take(codes.reshape(B, T, -1), order), T - total, start()
        for i, sizes in enumerate(wide):
            slots, now, state = one(i, carry, sizes)
            carry = slots, now if sizes[0] else jnp.zeros_like(total), state
        return carry

    def shown(i: Index, carry: tuple[Array, Array, Any]) -> Shown:
        known = rank < T - schedule.left(total, i)[:, None]
        return take(carry[0], rank).reshape(codes.shape), known.reshape(masked.shape)

    passes = lambda: schedule.passes(total)  # noqa: E731
    return Loop(schedule.end(total), begun, one, shown, passes, first=len(wide))
