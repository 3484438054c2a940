"""Where an accelerator's time goes, by kind of kernel: read from a trace of XLA's profiler."""

from __future__ import annotations

import collections
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

KINDS = (
    ("attention", r"fmha|flash|sdpa|splash|attention|cudnn::fusion::(compute_dot|convert_dq)"),
    ("convolutions", r"conv(?!ert)|dgrad|wgrad|fprop"),
    ("products", r"gemm|nvjet|cutlass|cublas|xmma|matmul|dot"),
    ("copies", r"memcpy|memset|^copy"),
)
"""The first that a kernel's name matches; the rest XLA wrote itself: element by element, sums,
transpositions, draws."""
OTHERS = "fusions"


class Kernel(NamedTuple):
    """One run of a kernel: its name, the instruction of the program that it is of (of a library's
    kernel it may not be known: its name again), seconds."""

    name: str
    instruction: str
    seconds: float


def kind(name: str) -> str:
    """Of a kernel, by its name."""
    return next((k for k, mark in KINDS if re.search(mark, name, re.IGNORECASE)), OTHERS)


def traced(run: Callable[[], object]) -> list[Kernel]:
    """The kernels that ran on the accelerator meanwhile; none on a CPU, whose trace has no kernels
    by themselves. `run` is to wait for what it begins."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        return list(read(jax.profiler.ProfileData.from_file(str(path))))


def read(data: Any) -> Iterable[Kernel]:
    """The kernels of a trace (`jax.profiler.ProfileData`): of a device's lines those that have
    kernels, for others sum them up once more."""
    for plane in data.planes:
        if not plane.name.startswith("/device:"):
            continue
        for line in plane.lines:
            if not re.match(r"Stream|XLA Ops", line.name):
                continue
            for event in line.events:
                told = str(dict(event.stats).get("hlo_op", ""))
                # on GPUs a fusion's kernel has its instruction's name, written as a C identifier
                own = told or re.sub(r"_(\d+)$", r".\1", event.name)
                yield Kernel(event.name, own, event.duration_ns * 1e-9)


def by_kind(kernels: Iterable[Kernel]) -> dict[str, float]:
    """Seconds of each kind, the longest first."""
    sums: dict[str, float] = collections.defaultdict(float)
    for kernel in kernels:
        sums[kind(kernel.name)] += kernel.seconds
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def sources(text: str) -> dict[str, str]:
    """What each instruction of a compiled program was written as, where it says so."""
    said = re.finditer(
        r'^ *(?:ROOT )?%?(\S+) = .*metadata=\{.*?op_name="([^"]*)"', text, re.MULTILINE
    )
    return {found[1]: found[2] for found in said}


def longest(
    kernels: Iterable[Kernel], count: int, written: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The names that took the most time in all, with how often they ran, of how many instructions,
    and what the first of these was `written` as (`sources`)."""
    written = written or {}
    groups: dict[str, list[Kernel]] = collections.defaultdict(list)
    for kernel in kernels:
        groups[kernel.name].append(kernel)
    rows = [
        {
            "kernel": name, "kind": kind(name), "seconds": sum(k.seconds for k in group),
            "times": len(group), "instructions": len({k.instruction for k in group}),
            "source": written.get(group[0].instruction, ""),
        } for name, group in groups.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row["seconds"])[:count]
