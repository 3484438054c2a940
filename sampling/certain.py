"""Codes that a blueprint makes certain first and together, then the others in even groups: an order
of `sampling.in_order` that the page itself gives."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from sampling.in_order import Schedule, ranks
from sampling.loops import Index, Loop, Shown
from sampling.parallel import WriteFn
from sampling.picking import Pick


def dispersed(grid: tuple[int, int]) -> np.ndarray:
    """The place of each position of a grid [y x] in an order that keeps near ones apart in time:
    Bayer's (1973) matrix for ordered dither. In any 2^n x 2^n of them its first 4^m are 2^(n-m)
    apart."""
    rows, columns = np.mgrid[: grid[0], : grid[1]]
    place, bits = np.zeros(grid, int), int(max(grid) - 1).bit_length()
    for k in range(bits):
        row, crossed = rows >> k & 1, (rows ^ columns) >> k & 1
        place |= (2 * crossed + row) << 2 * (bits - 1 - k)
    return place


def certain_first(
    order: str, certain: Bool[Array, "B y x"], masked: Bool[Array, "B y x"], num_passes: int
) -> Schedule:
    """Certain positions, then the others: by `strokes` in raster order, so that neighbours are
    printed together, by `blueprint` dispersed, so that they are printed after one another. A single
    pass prints all."""
    B, y, x = masked.shape
    later = dispersed((y, x)) if order == "blueprint" else np.arange(y * x)
    priority = jnp.where(certain, -1.0, jnp.asarray(later.reshape(y, x), jnp.float32))
    num_certain = None if num_passes == 1 else (certain & masked).sum(axis=(1, 2))
    return Schedule(ranks(priority.reshape(B, y * x), masked), num_passes, num_certain)


def loop_in_groups(
    write: WriteFn,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    pick: Pick,
    schedule: Schedule,
) -> Loop:
    """Fill the masked positions group by group, each written by a whole forward that sees the known
    codes and the groups before: `decode_in_order_slowly` of a decoder of masked codes, in no more
    passes than a page of the batch needs."""
    rank, total = schedule.rank, masked.sum(axis=(1, 2))
    T = rank.shape[1]
    here = pick.at(jnp.broadcast_to(jnp.arange(T), rank.shape))

    def one(i: Index, codes: Array) -> Array:
        now, after = (T - schedule.left(total, j)[:, None] for j in (i, i + 1))
        chosen, _ = write(codes, (rank >= now).reshape(masked.shape), here)
        group = ((rank >= now) & (rank < after)).reshape(masked.shape)
        return jnp.where(group[..., None], chosen, codes).astype(codes.dtype)

    def shown(i: Index, codes: Array) -> Shown:
        known = rank < T - schedule.left(total, i)[:, None]
        return codes, known.reshape(masked.shape)

    passes = lambda: schedule.passes(total)  # noqa: E731
    return Loop(schedule.end(total), lambda: codes, one, shown, passes)
