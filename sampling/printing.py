"""Conditions to codes by whatever a decoder offers: masked positions in parallel, in raster order,
or in any order a group at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array, Bool, Int

from layers.attention import Storage
from layers.axes import constrain
from sampling.guidance import doubled, told_half
from sampling.in_order import (
    ORDERS,
    Schedule,
    largest_group,
    loop_in_order,
    priorities,
    ranks,
)
from sampling.loops import Loop
from sampling.parallel import Written, masked_loop, require_passes
from sampling.picking import Pick
from sampling.policy import Policy
from sampling.raster import raster_loop

Probes = Mapping[str, Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class Press:
    """How codes are chosen. `guidance` 1 asks the decoder with its conditions only; `num_passes` is
    of no matter to a causal decoder, `order` (see `sampling.in_order`) only to a random one, and
    `cache` (see `layers.attention.Storage`) not to a masked one, which has none."""

    policy: Policy = dataclasses.field(default_factory=Policy)
    num_passes: int = 1
    guidance: float = 1.0
    order: str = "random"
    cache: str = ""

    def __post_init__(self) -> None:
        Storage(self.cache)
        require_passes(self.num_passes)
        if self.order not in ORDERS:
            raise ValueError(f"order {self.order!r} is not known; there is: {', '.join(ORDERS)}")


def num_passes(probes: Probes, press: Press, num_positions: int) -> int:
    """How often a page goes through the decoder's trunk when all of it is printed, the reading of
    its letters not counted. Under guidance each time is twice."""
    if "step" in probes:
        once = num_positions
    elif "advance" in probes:
        once = min(press.num_passes, num_positions)
    else:
        once = press.num_passes
    return once if press.guidance == 1 else 2 * once


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
    return printing(probes, codes, masked, given, keys, press=press).run()


def printing(
    probes: Probes,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    given: Mapping[str, Any],
    keys: Array,
    *,
    press: Press,
) -> Loop:
    """`print_codes` as a loop that can be stopped between passes. On a mesh rows go where its rules
    have B."""
    rows = lambda x: constrain(x, "B" + "_" * (x.ndim - 1))  # noqa: E731
    codes, masked, given, keys = jax.tree.map(rows, (codes, masked, dict(given), keys))
    scale, pick = press.guidance, Pick(keys, press.policy, press.guidance)
    twice = lambda rows: doubled(rows, rows, scale)  # noqa: E731
    if scale != 1:
        given = doubled(dict(given), dict(probes["unconditional"](given)), scale)
    if "step" in probes:
        storage = Storage(press.cache)

        def step(at: Array, before: Array, sheet: Any, pick: Pick) -> tuple[Array, Any]:
            chosen, _, sheet = probes["step"](at, twice(before), sheet, pick)
            return told_half(chosen, scale), sheet

        start = lambda: probes["prefill"](twice(codes), given, storage)  # noqa: E731
        return raster_loop(step, start, codes, masked, pick)
    if "advance" in probes:
        return _in_order(probes, codes, masked, given, pick, press=press)

    def write(codes: Array, masked: Array, pick: Pick) -> Written:
        chosen, logits = probes["write"](*twice((codes, masked)), given, pick)
        return told_half(chosen, scale), pick.combined(logits)

    return masked_loop(write, codes, masked, pick, num_passes=press.num_passes)


def _in_order(
    probes: Probes,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    given: Mapping[str, Any],
    pick: Pick,
    *,
    press: Press,
) -> Loop:
    T = codes.shape[1] * codes.shape[2]
    passes = min(press.num_passes, T)
    twice = lambda rows: doubled(rows, rows, press.guidance)  # noqa: E731
    rank = ranks(priorities(press.order, pick.keys, T), masked)
    num_known = T - masked.sum(axis=(1, 2))
    storage = Storage(press.cache, spare=2 * largest_group(T, passes))
    start = lambda: probes["lay_out"](*twice((codes, num_known, rank)), given, storage)  # noqa: E731

    def advance(at: Array, now: Array, before: Array, galley: Any, pick: Pick) -> tuple[Array, Any]:
        chosen, _, galley = probes["advance"](*twice((at, now, before)), galley, pick)
        return told_half(chosen, press.guidance), galley

    return loop_in_order(advance, start, codes, masked, pick, Schedule(rank, passes))
