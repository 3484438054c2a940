"""The whole training step of a config on one device: forward, backward, clipping, guard, update."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import jax

from layers.block import REMATS
from scripts.bench.kernels import by_kind, longest, sources, traced
from scripts.bench.report import Report
from scripts.bench.rows import Rows, rows_of
from scripts.bench.training import Own, ours
from scripts.bench.turns import in_turns, median, timed
from train.accounting import amounts, mfu

HEAD = ("config", "parameters", "rows", "remat", "s a step", "tokens/s", "TFLOP/s",
        "of the products' rate", "MFU", "GB held")  # fmt: skip
_TRACED = 2  # steps


def add_flags(flags: argparse.ArgumentParser) -> None:
    """What is run, and how; `--config.a.b=c` changes the configs."""
    cpu = jax.default_backend() == "cpu"
    large = [Path("configs/decoder/xl.py"), Path("configs/decoder/3b.py")]
    small = [Path("configs/tiny/decoder.py")]
    flags.add_argument("--config", type=Path, nargs="+", default=small if cpu else large)
    flags.add_argument("--rows", type=int, nargs="+", default=[4 if cpu else 16], help="a step's")
    flags.add_argument(
        "--remat", choices=("auto", *REMATS), nargs="+", default=["auto"],
        help="what the backward pass keeps; auto: the device kind's",
    )  # fmt: skip
    flags.add_argument("--kernels", type=int, default=0, metavar="N", help="and name the longest N")


def measure(report: Report, args: argparse.Namespace) -> None:
    """Every config with every number of rows and every remat; what does not fit is said to."""
    found: list[dict[str, Any]] = []
    for path, num_rows, remat in itertools.product(args.config, args.rows, args.remat):
        what = f"{path}, {num_rows} rows, remat {remat}"
        if report.is_late(f"mfu of {what}"):
            continue
        said: dict[str, Any] = {"config": str(path), "rows": num_rows, "remat": remat}
        try:
            said |= _of(report, args, rows_of(path, num_rows, _changes(args, remat)))
        except jax.errors.JaxRuntimeError as problem:
            if "RESOURCE_EXHAUSTED" not in str(problem):
                raise
            said["problem"] = str(problem).splitlines()[0]
            report.note(f"{what}: does not fit: {said['problem']}")
        found.append(said)
        report.put("mfu", found)
        if "problem" not in said:
            _tell(report, said)


def _changes(args: argparse.Namespace, remat: str) -> list[str]:
    return [*args.changes, f"--config.model.remat={remat}"]


def _of(report: Report, args: argparse.Namespace, rows: Rows) -> dict[str, Any]:
    step: Own = ours(rows.task, rows.batch, rows.loop)
    first = timed(step.run)
    for _ in range(2):  # clocks and allocations settle
        step.run()
    took = in_turns({"ours": step.run}, args.turns)
    seconds, peak = median(took["ours"]), report.machine.peak_flops_per_s
    rates = report.machine.matmul_flops_per_s
    dtype = next(iter(rates))
    said: dict[str, Any] = {
        "num_params": step.num_params, "step_flops": step.flops, "step_s": seconds,
        "first_run_s": first, "turns_s": took["ours"], "flops_per_s": step.flops / seconds,
        "share_of_matmul_rate": step.flops / seconds / rates[dtype], "matmul_dtype": dtype,
        "mfu": mfu(step.flops, seconds, num_devices=1, peak_flops_per_s=peak),
        "amounts": amounts(rows.batch), "left_out": list(rows.left_out),
        "held_bytes": step.held_bytes, "loss": step.run(),
    }  # fmt: skip
    if args.kernels:
        kernels = traced(lambda: [step.run() for _ in range(_TRACED)])
        kinds = {name: s / _TRACED for name, s in by_kind(kernels).items()}
        said |= {
            "kernels_s": kinds,
            "longest": longest(kernels, args.kernels, sources(step.text())),
        }
    return said


def _tell(report: Report, said: dict[str, Any]) -> None:
    tokens = said["amounts"].get("tokens")
    report.table("A config's whole step", HEAD, [[
        said["config"], f"{said['num_params'] / 1e6:.1f}M", said["rows"], said["remat"],
        said["step_s"], tokens and tokens / said["step_s"], said["flops_per_s"] / 1e12,
        said["share_of_matmul_rate"], said["mfu"], said["held_bytes"] / 1e9,
    ]])  # fmt: skip
    if kinds := said.get("kernels_s"):
        shares = (f"{kind} {100 * s / said['step_s']:.1f} %" for kind, s in kinds.items())
        report.note(f"  of the step: {', '.join(shares)}")
    for row in said.get("longest", []):
        took, times = 1000 * row["seconds"] / _TRACED, row["times"] // _TRACED
        report.note(f"  {took:8.2f} ms {row['kind']:12} {times:5} times  {row['kernel'][:70]}  "
                    f"{row['source'][-60:]}")  # fmt: skip
