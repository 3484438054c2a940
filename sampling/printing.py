"""Conditions to codes by whatever a decoder offers: masked positions in parallel, in raster order,
or in any order a group at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from layers.attention import Storage
from layers.axes import constrain
from sampling.ahead import decode_ahead
from sampling.certain import certain_first, loop_in_groups
from sampling.guidance import doubled, told_half
from sampling.in_order import (
    CERTAIN_FIRST,
    ORDERS,
    Schedule,
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
    of no matter to a causal decoder, which checks `window` positions in a pass
    (`sampling.ahead`): that changes no code. A random one prints in an `order` of
    `sampling.in_order`, a masked one surest first, but in the orders of `CERTAIN_FIRST` as well; in
    these `num_passes` are the most that a page may need. `cache` (see `layers.attention.Storage`)
    is of no matter to a masked one, which has none."""

    policy: Policy = dataclasses.field(default_factory=Policy)
    num_passes: int = 1
    guidance: float = 1.0
    order: str = "random"
    cache: str = ""
    window: int = 1

    def __post_init__(self) -> None:
        Storage(self.cache)
        require_passes(self.num_passes)
        if self.order not in ORDERS:
            raise ValueError(f"order {self.order!r} is not known; there is: {', '.join(ORDERS)}")
        if self.window < 1:
            raise ValueError(f"window {self.window} is not at least 1")


def _most(press: Press, num_positions: int) -> int:
    """How many groups there may be: none is empty but perhaps the one of certain positions."""
    return min(press.num_passes, num_positions + (press.order in CERTAIN_FIRST))


def _schedule(
    probes: Probes,
    masked: Bool[Array, "B y x"],
    given: Mapping[str, Any],
    keys: Array,
    press: Press,
) -> Schedule:
    """The order of each page's positions and their groups."""
    T = masked[0].size
    if press.order in CERTAIN_FIRST:
        return certain_first(press.order, probes["certain"](given), masked, _most(press, T))
    return Schedule(ranks(priorities(press.order, keys, T), masked), _most(press, T))


def print_counted(
    probes: Probes,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    given: Mapping[str, Any],
    keys: Array,
    *,
    press: Press,
) -> tuple[Int[Array, "B y x Q"], Int[Array, " B"]]:
    """`print_codes`, and how often each page went through the trunk until it was done, the reading
    of its letters not counted. Under guidance each time is twice."""
    request = probes, codes, masked, given, keys
    if "step" in probes and press.window > 1:
        made, passes = _ahead(*request, press)
        return made, passes if press.guidance == 1 else 2 * passes
    loop = printing(*request, press=press)
    return loop.run(), num_passes(loop, press)


def num_passes(loop: Loop, press: Press) -> Int[Array, " B"]:
    """How often each page goes through the trunk in a loop that `printing` made."""
    return loop.passes() if press.guidance == 1 else 2 * loop.passes()


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
    if "step" in probes and press.window > 1:
        return _ahead(probes, codes, masked, given, keys, press)[0]
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
    """`print_codes` as a loop that can be stopped between passes, a causal decoder's one at a
    time. On a mesh rows go where its rules have B."""
    codes, masked, given, keys = _placed(codes, masked, dict(given), keys)
    scale, pick = press.guidance, Pick(keys, press.policy, press.guidance)
    twice = lambda rows: doubled(rows, rows, scale)  # noqa: E731
    in_groups = "advance" in probes or ("step" not in probes and press.order in CERTAIN_FIRST)
    schedule = _schedule(probes, masked, given, keys, press) if in_groups else None
    if scale != 1:
        given = doubled(dict(given), dict(probes["unconditional"](given)), scale)
    if "step" in probes:
        storage = Storage(press.cache)

        def step(at: Array, before: Array, sheet: Any, pick: Pick) -> tuple[Array, Any]:
            chosen, _, sheet = probes["step"](at, twice(before), sheet, pick)
            return told_half(chosen, scale), sheet

        start = lambda: probes["prefill"](twice(codes), given, storage)  # noqa: E731
        return raster_loop(step, start, codes, masked, pick)
    if schedule is not None and "advance" in probes:
        return _in_order(probes, codes, masked, given, pick, (schedule, press.cache))

    def write(codes: Array, masked: Array, pick: Pick) -> Written:
        chosen, logits = probes["write"](*twice((codes, masked)), given, pick)
        return told_half(chosen, scale), pick.combined(logits)

    if schedule is not None:
        return loop_in_groups(write, codes, masked, pick, schedule)
    return masked_loop(write, codes, masked, pick, num_passes=press.num_passes)


def _placed(*arrays: Any) -> Any:
    """The arrays with their rows where a mesh's rules have B."""
    return jax.tree.map(lambda x: constrain(x, "B" + "_" * (x.ndim - 1)), arrays)


def _in_order(
    probes: Probes,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    given: Mapping[str, Any],
    pick: Pick,
    how: tuple[Schedule, str],
) -> Loop:
    (schedule, cache), T = how, masked[0].size
    twice = lambda rows: doubled(rows, rows, pick.guidance)  # noqa: E731
    num_known = T - masked.sum(axis=(1, 2))
    size = schedule.size if schedule.num_passes > 1 else 0  # a single pass reads none of a group
    storage = Storage(cache, spare=2 * size)
    laid = twice((codes, num_known, schedule.rank))
    start = lambda: probes["lay_out"](*laid, given, storage)  # noqa: E731

    def advance(at: Array, now: Array, before: Array, galley: Any, pick: Pick) -> tuple[Array, Any]:
        chosen, _, galley = probes["advance"](*twice((at, now, before)), galley, pick)
        return told_half(chosen, pick.guidance), galley

    return loop_in_order(advance, start, codes, masked, pick, schedule)


def _ahead(
    probes: Probes,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    given: Mapping[str, Any],
    keys: Array,
    press: Press,
) -> tuple[Int[Array, "B y x Q"], Int[Array, " B"]]:
    """What `step` prints, in windows, and the passes of each page."""
    codes, masked, given, keys = _placed(codes, masked, dict(given), keys)
    scale, pick = press.guidance, Pick(keys, press.policy, press.guidance)
    twice = lambda rows: doubled(rows, rows, scale)  # noqa: E731
    guess = jnp.where(masked[..., None], probes["guess"](codes, given), codes)
    if scale != 1:
        given = doubled(dict(given), dict(probes["unconditional"](given)), scale)
    sheet = probes["prefill"](twice(codes), given, Storage(press.cache))

    def look(at: Array, before: Array, sheet: Any, pick: Pick) -> tuple[Array, Any]:
        chosen, _, sheet = probes["look_ahead"](*twice((at, before)), sheet, pick)
        return told_half(chosen, scale), sheet

    return decode_ahead(look, sheet, guess, masked, pick, window=press.window)
