"""Generation: codes a second, one code at a time, guided, with top-k, of ours and of others in
turns, beside the floor."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax

from layers.quantized import WEIGHTS
from scripts.bench import torch_side
from scripts.bench.generation import SHAPES, Shape, ours
from scripts.bench.machine import peak_bytes
from scripts.bench.peers import torch_loop, transformers_generate
from scripts.bench.report import Report
from scripts.bench.turns import in_turns, median, ratio, timed
from train.accounting import mfu

PEERS: dict[str, Callable[..., Callable[[], Any]]] = {
    "eager": lambda shape, batch, dtype: torch_loop(shape, batch, compiled=False, dtype=dtype),
    "compiled": lambda shape, batch, dtype: torch_loop(shape, batch, compiled=True, dtype=dtype),
    "transformers": lambda shape, batch, dtype: transformers_generate(shape, batch, dtype=dtype),
}
RATIOS = {"eager": "ratio_to_eager_peer", "compiled": "ratio_to_compiled_peer",
          "transformers": "ratio_to_transformers"}  # fmt: skip
BYTES = {"float32": 4, "bfloat16": 2}
HEAD = ("shape", "dtype", "batch", "ours codes/s", "eager", "compiled", "transformers",
        "ours / compiled", "ours / transformers", "of the copy floor", "of the read floor",
        "MFU")  # fmt: skip


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Those of generation."""
    flags.add_argument("--shape", nargs="+", choices=SHAPES, default=["b"])
    flags.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    flags.add_argument("--codes", type=int, help="of a page, a square: 256, on a GPU 64")
    flags.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    flags.add_argument(
        "--weights", nargs="*", choices=WEIGHTS[1:], default=[],
        help="of our kernels, beside those of --dtype",
    )  # fmt: skip


def started(
    shape: Shape, batch: int, args: argparse.Namespace, report: Report
) -> tuple[dict[str, Callable[[], Any]], dict[str, float], dict[str, str]]:
    """What is to be timed, the seconds of each one's first run, and why a peer does not run: its
    failure on this machine takes nothing from the others."""
    runs: dict[str, Callable[[], Any]] = {"ours": ours(shape, batch, dtype=args.dtype)}
    runs |= {f"ours {kind}": ours(shape, batch, dtype=args.dtype, weights=kind)
             for kind in args.weights}  # fmt: skip
    first, failed = {name: timed(run) for name, run in runs.items()}, {}
    for name in args.peers:
        try:
            peer = PEERS[name](shape, batch, args.dtype)
            first[name] = timed(peer)
        except (RuntimeError, NotImplementedError, AssertionError) as problem:
            lines = str(problem).strip().splitlines() or [""]
            failed[name] = f"{type(problem).__name__}: {lines[0]}"
            report.note(f"{name} does not run here: {failed[name]}")
        else:
            runs[name] = peer
    return runs, first, failed


def row(shape: Shape, batch: int, args: argparse.Namespace, report: Report) -> dict[str, Any]:
    """All that is measured at one batch size."""
    machine, dtype = report.machine, args.dtype
    runs, first, failed = started(shape, batch, args, report)
    took = in_turns(runs, args.turns)
    moved, flops = shape.step_bytes(batch, BYTES[dtype]), shape.step_flops(batch)
    copied_s, read_s = (
        shape.num_codes * machine.floor_s(moved, flops, dtype=dtype, only_read=only)
        for only in (False, True)
    )
    codes, own_s = batch * shape.num_codes, median(took["ours"])
    said: dict[str, Any] = {
        "step_bytes": moved, "step_flops": flops, "weight_bytes": shape.num_params * BYTES[dtype],
        "floor_codes_per_s": codes / copied_s, "read_floor_codes_per_s": codes / read_s,
        "codes_per_s": {name: codes / median(t) for name, t in took.items()},
        "share_of_floor": copied_s / own_s, "share_of_read_floor": read_s / own_s,
        "moved_bytes_per_s": moved * shape.num_codes / own_s,
        "mfu": mfu(flops * shape.num_codes, own_s, num_devices=1,
                   peak_flops_per_s=machine.peak_flops_per_s),
        "peak_bytes": {"ours": peak_bytes(), "torch": torch_side.peak_bytes()},
        "first_run_s": first, "turns_s": took, "failed": failed,
    }  # fmt: skip
    for kind in args.weights:
        said[f"speedup_of_{kind}"] = ratio(took, "ours", f"ours {kind}")
    return said | {RATIOS[name]: ratio(took, name) for name in runs if name in RATIOS}


def measure(report: Report, args: argparse.Namespace) -> None:
    """Every shape at every batch size. The JSON has each number by batch size, of the first shape
    under `generation` and of all under `shapes`."""
    num_codes = args.codes or (None if jax.default_backend() == "cpu" else 64)
    shapes: dict[str, Any] = {}
    for name in args.shape:
        shape = SHAPES[name].of(num_codes) if num_codes else SHAPES[name]
        found = shapes.setdefault(name, {"num_codes": shape.num_codes, "dtype": args.dtype})
        for batch in args.batch:
            if report.is_late(f"generation, {name} at batch {batch}"):
                continue
            said = row(shape, batch, args, report)
            for key, value in said.items():
                found.setdefault(key, {})[str(batch)] = value
            report.put("generation", shapes[args.shape[0]])
            report.put("shapes", shapes)
            if args.peers:
                torch_side.forget()
            _tell(report, (name, shape.num_codes, batch), said, args)


def _tell(report: Report, which: tuple[str, int, int], said: dict, args: Any) -> None:
    name, num_codes, batch = which
    report.note(
        f"{name}, batch {batch}: a code must move {said['step_bytes'] / 1e9:.3f} GB and do "
        f"{said['step_flops'] / 1e9:.2f} GFLOP; the floor is {said['floor_codes_per_s']:.4g} "
        f"codes/s by copying, {said['read_floor_codes_per_s']:.4g} by reading; ours moves "
        f"{said['moved_bytes_per_s'] / 1e9:.1f} GB/s"
    )
    speeds = said["codes_per_s"]
    cells = [name, args.dtype, batch, *(speeds.get(n) for n in ("ours", *PEERS)),
             said.get(RATIOS["compiled"]), said.get(RATIOS["transformers"]),
             said["share_of_floor"], said["share_of_read_floor"], said["mfu"]]  # fmt: skip
    report.table(f"Generation, {num_codes} codes a page", HEAD, [cells])
    for kind in args.weights:
        report.note(f"  with {kind} kernels {speeds[f'ours {kind}']:.4g} codes/s, "
                    f"{said[f'speedup_of_{kind}']:.2f} times ours")  # fmt: skip
    for peer in args.peers:
        if RATIOS[peer] in said:
            report.note(f"  {said[RATIOS[peer]]:.2f} times {peer}")
