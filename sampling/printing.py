"""Conditions to codes by whatever a decoder offers: masked positions in parallel, or in raster
order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Array, Bool, Int

from sampling.guidance import doubled, guided_logits, guided_step
from sampling.parallel import decode_masked
from sampling.policy import Policy
from sampling.raster import decode_raster


@dataclasses.dataclass(frozen=True)
class Press:
    """How codes are chosen; `guidance` 1 asks the decoder with its conditions only, and
    `num_passes` is of no matter to a causal one."""

    policy: Policy = dataclasses.field(default_factory=Policy)
    num_passes: int = 1
    guidance: float = 1.0


def print_codes(
    probes: Mapping[str, Callable[..., Any]],
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    given: Mapping[str, Any],
    keys: Array,
    *,
    press: Press,
) -> Int[Array, "B y x Q"]:
    """Fill the masked positions by a decoder's probes: one with a `step` prints them in raster
    order, each given all codes before it, the known ones among them; any other in parallel, given
    all known codes."""
    scale, policy = press.guidance, press.policy
    if scale != 1:
        given = doubled(dict(given), dict(probes["unconditional"](given)), scale)
    if "step" in probes:
        sheet = probes["prefill"](doubled(codes, codes, scale), given)
        step = guided_step(probes["step"], scale)
        return decode_raster(step, sheet, codes, masked, keys, policy=policy)
    logits_of = guided_logits(lambda c, m: probes["logits"](c, m, given), scale)
    passes = press.num_passes
    return decode_masked(logits_of, codes, masked, keys, num_passes=passes, policy=policy)
