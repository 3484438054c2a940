"""What a compiled step comes to on a chip: memory by what holds it, time by what bounds it."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from train.hardware import Hardware
from train.preflight.compiling import Program, chip_bytes
from train.preflight.work import Work, axes_of
from train.state import State

GB = 1e9


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Seconds that a step takes at least; None where the chip's speed is not known."""

    compute_s: float | None
    hbm_s: float | None
    interconnect_s: float | None

    @property
    def step_s(self) -> float | None:
        """The largest, as if the three overlapped wholly; None unless all are known."""
        parts = (self.compute_s, self.hbm_s, self.interconnect_s)
        known = [part for part in parts if part is not None]
        return max(known) if len(known) == len(parts) else None

    @property
    def what(self) -> str:
        """Which one bounds it."""
        parts = {"compute": self.compute_s, "HBM": self.hbm_s, "interconnect": self.interconnect_s}
        return max(parts, key=lambda name: parts[name] or 0.0)


def bounds(work: Work, chip: Hardware) -> Bounds:
    """Work over speed. A group that leaves its node goes as slowly as what leaves a node."""

    def over(amount: float, speed: float | None) -> float | None:
        return None if speed is None else amount / speed

    talk: float | None = 0.0
    for found in work.collectives:
        leaves = chip.node and len({device // chip.node for device in found.group}) > 1
        took = over(found.wire_bytes, chip.dcn_bytes_per_s if leaves else chip.ici_bytes_per_s)
        talk = None if talk is None or took is None else talk + took
    compute, hbm = (
        over(work.flops, chip.peak_flops_per_s),
        over(work.hbm_bytes, chip.hbm_bytes_per_s),
    )
    return Bounds(compute, hbm, talk)


def by_kind_and_axis(work: Work, mesh: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Bytes that a chip sends in a step: kind -> mesh axes -> bytes."""
    found: dict[str, dict[str, int]] = {}
    for collective in work.collectives:
        axes = found.setdefault(collective.kind, {})
        name = axes_of(collective.group, mesh)
        axes[name] = axes.get(name, 0) + collective.wire_bytes
    return found


def memory(state: State, batch: Any, program: Program) -> dict[str, float]:
    """GB on each chip by what holds them: the state from its shardings, the rest from the
    compiler. Without a compiled program the rest is unknown."""
    parts = {
        "parameters": chip_bytes(state.params), "optimizer": chip_bytes(state.opt),
        "average": chip_bytes(state.ema), "other variables": chip_bytes(state.extra),
        "batch": chip_bytes(batch),
    }  # fmt: skip
    if program.work is not None:
        parts["activations and temporaries"] = program.temporary_bytes
    return {name: size / GB for name, size in parts.items()}


def remedy(parts: Mapping[str, float], hbm_gb: float, remat: str | None) -> str:
    """What to change in the config of a step that does not fit."""
    state = sum(size for name, size in parts.items() if not name.startswith("activations"))
    if state > 0.8 * hbm_gb:
        return (
            f"the state alone takes {state:.2f} GB of a chip: cut it over more chips "
            "(a larger fsdp in config.loop.mesh, or rules that name it), or keep no average"
        )
    if remat not in (None, "full"):
        return "activations take the rest: set config.model.remat=full"
    return (
        "activations take the rest: halve config.data.batch_size or raise the number of "
        "microbatches, or give config.loop.mesh more chips or a tensor axis"
    )


def advice(work: Work, mesh: Mapping[str, int]) -> list[str]:
    """What a reader of the numbers should know."""
    told = []
    spread = collections.Counter[str]()
    for found in work.collectives:
        if found.is_gather:
            spread[axes_of(found.group, mesh)] += found.wire_bytes
    for axes, size in spread.items():
        if size > 0.05 * sum(found.wire_bytes for found in work.collectives):
            told.append(
                f"{size / GB:.2f} GB of all-reduce over {axes} are gathers that the compiler "
                "does as all-reduces of twice the bytes: it does so where an axis covers the whole "
                "torus of a slice; give it a part, and `data` the rest"
            )
    if work.unknown_loops:
        told.append(f"{work.unknown_loops} loops turn as often as their data says; counted once")
    return told


def report(program: Program, chip: Hardware, mesh: Mapping[str, int]) -> dict[str, Any]:
    """A program's numbers in plain JSON."""
    said: dict[str, Any] = {
        "compile_s": round(program.seconds, 1),
        "needed_gb": program.needed_bytes / GB,
        "hbm_gb": None if chip.hbm_bytes is None else chip.hbm_bytes / GB,
        "fits": not program.problem and program.needed_bytes <= (chip.hbm_bytes or math.inf),
        "problem": program.problem,
        "rematerialisations": list(program.warnings),
    }
    if program.work is not None:
        did, limits = program.work, bounds(program.work, chip)
        said |= {
            "flops_per_chip": did.flops,
            "hbm_bytes_per_chip": did.hbm_bytes,
            "collective_bytes_per_chip": by_kind_and_axis(did, mesh),
            "arithmetic_intensity": did.flops / max(did.hbm_bytes, 1),
            "bounds_s": dataclasses.asdict(limits),
            "bound_by": limits.what,
            "roofline_s": limits.step_s,
            "notes": advice(did, mesh),
        }
    return said
