"""Conditions to codes by whatever a decoder offers: masked positions in parallel, in raster order,
or in any order a group at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from sampling.ahead import decode_ahead
from sampling.guidance import doubled, told_half
from sampling.in_order import (
    CERTAIN_FIRST,
    ORDERS,
    Schedule,
    certain_first,
    decode_in_groups,
    decode_in_order,
    priorities,
    ranks,
)
from sampling.parallel import Written, decode_masked, require_passes
from sampling.picking import Pick
from sampling.policy import Policy
from sampling.raster import decode_raster

Probes = Mapping[str, Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class Press:
    """How codes are chosen. `guidance` 1 asks the decoder with its conditions only.

    A causal decoder checks `window` positions in a pass (`sampling.ahead`), which changes no code,
    and the rest is of no matter to it. A random one prints in an `order` of `sampling.in_order`,
    `blueprint` and `strokes` with what is certain first; a masked one in these two as well, else
    the surest first. `num_passes` are then the most that a page may need.
    """

    policy: Policy = dataclasses.field(default_factory=Policy)
    num_passes: int = 1
    guidance: float = 1.0
    order: str = "random"
    window: int = 1

    def __post_init__(self) -> None:
        require_passes(self.num_passes)
        if self.order not in ORDERS:
            raise ValueError(f"order {self.order!r} is not known; there is: {', '.join(ORDERS)}")
        if self.window < 1:
            raise ValueError(f"window {self.window} is not at least 1")


def num_passes(probes: Probes, press: Press, num_positions: int) -> int:
    """How often a page goes through the decoder's trunk at most when all of it is printed, the
    reading of its letters not counted. Under guidance each time is twice. How often it does,
    where that is the page's matter, `print_counted` says."""
    if "step" in probes:
        once = num_positions
    elif "advance" in probes or press.order in CERTAIN_FIRST:
        once = most_passes(press, num_positions)
    else:
        once = press.num_passes
    return once if press.guidance == 1 else 2 * once


def most_passes(press: Press, num_positions: int) -> int:
    """How many passes of groups a page can use: no group is empty, but for one of certain
    positions."""
    return min(press.num_passes, num_positions + (press.order in CERTAIN_FIRST))


def print_codes(
    probes: Probes,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    given: Mapping[str, Any],
    keys: Array,
    *,
    press: Press,
) -> Int[Array, "B y x Q"]:
    """Fill the masked positions by a decoder's probes: one with a `step` prints them in raster
    order, each given all codes before it, the known ones among them; one with an `advance` in the
    press's order, given all known codes and those before; any other in parallel, given all known
    codes."""
    return print_counted(probes, codes, masked, given, keys, press=press)[0]


def print_counted(
    probes: Probes,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    given: Mapping[str, Any],
    keys: Array,
    *,
    press: Press,
) -> tuple[Int[Array, "B y x Q"], Int[Array, " B"]]:
    """`print_codes`, and how often each page went through the trunk until it was done, counted as
    `num_passes` counts."""
    scale, pick = press.guidance, Pick(keys, press.policy, press.guidance)
    way = _raster if "step" in probes else _in_order if "advance" in probes else _masked
    beforehand = {}
    if press.window > 1 and "guess" in probes:
        beforehand["guess"] = probes["guess"](codes, given)
    if press.order in CERTAIN_FIRST and "certain" in probes:
        beforehand["certain"] = probes["certain"](given)
    if scale != 1:
        given = doubled(dict(given), dict(probes["unconditional"](given)), scale)
    made, passes = way(Job(probes, given, beforehand, press), codes, masked, pick)
    return made, passes if scale == 1 else 2 * passes


@dataclasses.dataclass(frozen=True)
class Job:
    """A decoder's probes, what it is told (twice the rows under guidance), what is known
    `beforehand` of each page (`guess` at its codes, where it is `certain`), and the press."""

    probes: Probes
    given: Mapping[str, Any]
    beforehand: Mapping[str, Array]
    press: Press

    def twice(self, rows: Any) -> Any:
        """Rows for the told and the untold half."""
        return doubled(rows, rows, self.press.guidance)

    def ask(self, name: str, *arrays: Any) -> tuple[Any, ...]:
        """A probe's answer, of the codes in front only the told half."""
        codes, *rest = self.probes[name](*arrays)
        return told_half(codes, self.press.guidance), *rest

    def schedule(self, pick: Pick, masked: Bool[Array, "B y x"]) -> Schedule:
        """The order of a page's positions and their groups."""
        T, order = masked[0].size, self.press.order
        passes = most_passes(self.press, T)
        if order in CERTAIN_FIRST:
            return certain_first(order, self.beforehand["certain"], masked, passes)
        return Schedule(ranks(priorities(order, pick.keys, T), masked), passes)


Printed = tuple[Int[Array, "B y x Q"], Int[Array, " B"]]


def _raster(job: Job, codes: Array, masked: Array, pick: Pick) -> Printed:
    B, T = len(codes), masked[0].size
    sheet = job.probes["prefill"](job.twice(codes), job.given)
    if job.press.window == 1:

        def step(at: Array, before: Array, sheet: Any, pick: Pick) -> tuple[Array, Any]:
            chosen, _, sheet = job.ask("step", at, job.twice(before), sheet, pick)
            return chosen, sheet

        last = jnp.where(masked.reshape(B, T), jnp.arange(1, T + 1), 0).max(axis=1)
        return decode_raster(step, sheet, codes, masked, pick), last

    def look(at: Array, before: Array, sheet: Any, pick: Pick) -> tuple[Array, Any]:
        chosen, _, sheet = job.ask("look_ahead", *job.twice((at, before)), sheet, pick)
        return chosen, sheet

    guess = jnp.where(masked[..., None], job.beforehand["guess"], codes)
    return decode_ahead(look, sheet, guess, masked, pick, window=job.press.window)


def _in_order(job: Job, codes: Array, masked: Array, pick: Pick) -> Printed:
    B, y, x, Q = codes.shape
    schedule, total = job.schedule(pick, masked), masked.sum(axis=(1, 2))
    group = jnp.zeros((B, schedule.size, Q), jnp.int32)
    told = job.twice((codes, y * x - total, schedule.rank, group))
    galley = job.probes["lay_out"](*told, job.given)

    def advance(at: Array, now: Array, before: Array, galley: Any, pick: Pick) -> tuple[Array, Any]:
        chosen, _, galley = job.ask("advance", *job.twice((at, now, before)), galley, pick)
        return chosen, galley

    made = decode_in_order(advance, galley, codes, masked, pick, schedule)
    return made, schedule.passes(total)


def _masked(job: Job, codes: Array, masked: Array, pick: Pick) -> Printed:
    total, num_passes = masked.sum(axis=(1, 2)), job.press.num_passes

    def write(codes: Array, masked: Array, pick: Pick) -> Written:
        chosen, logits = job.ask("write", *job.twice((codes, masked)), job.given, pick)
        return chosen, pick.combined(logits)

    if job.press.order in CERTAIN_FIRST:
        schedule = job.schedule(pick, masked)
        made = decode_in_groups(write, codes, masked, pick, schedule)
        return made, schedule.passes(total)
    made = decode_masked(write, codes, masked, pick, num_passes=num_passes)
    return made, jnp.where(total > 0, num_passes, 0)
