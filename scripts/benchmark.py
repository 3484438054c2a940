"""How fast, and how far from what the machine allows: `python scripts/benchmark.py [--json F]`.

Generation: a GPT of codes of LlamaGen's shapes with random weights, one code at a time, guided,
with top-k. In one run and in turns: ours, a PyTorch loop with a static cache eager and compiled,
and transformers' `generate` (`--peers` names them; they need the extra `interop`). Beside each
stands the floor: the bytes that a step must move over what the machine copies in a second, or its
FLOPs over what a product of matrices reaches, whichever is longer. Ratios are medians over the
turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

from layers.quantized import WEIGHTS
from scripts.bench.generation import SHAPES, Shape, ours
from scripts.bench.machine import copy_bytes_per_s, matmul_flops_per_s
from scripts.bench.peers import torch_loop, transformers_generate

PEERS = {
    "eager": lambda shape, batch: torch_loop(shape, batch, compiled=False),
    "compiled": lambda shape, batch: torch_loop(shape, batch, compiled=True),
    "transformers": transformers_generate,
}
RATIOS = {"eager": "ratio_to_eager_peer", "compiled": "ratio_to_compiled_peer",
          "transformers": "ratio_to_transformers"}  # fmt: skip


def in_turns(runs: dict[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """Seconds of each, one after another and over again, after one run that warms up."""
    took: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(turns):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            took[name].append(time.perf_counter() - start)
    return took


def own_names(kinds: list[str]) -> dict[str, str]:
    """What a run of ours with weights of each kind is called: the first `ours`, others by kind."""
    return {("ours" if i == 0 else f"ours {kind}"): kind for i, kind in enumerate(kinds)}


def generation(shape: Shape, batch: int, args: argparse.Namespace, machine: dict) -> dict:
    """One row of the table."""
    runs: dict[str, Callable[[], Any]] = {
        name: ours(shape, batch, weights=kind) for name, kind in own_names(args.weights).items()
    }
    runs |= {name: PEERS[name](shape, batch) for name in args.peers}
    took = in_turns(runs, args.turns)
    step_bytes = shape.step_bytes(batch, weights=args.weights[0])
    floor_s = shape.num_codes * max(
        step_bytes / machine["copy_bytes_per_s"],
        shape.step_flops(batch) / machine["matmul_flops_per_s"],
    )
    codes = batch * shape.num_codes
    said: dict[str, Any] = {
        "step_bytes": step_bytes, "step_flops": shape.step_flops(batch),
        "floor_codes_per_s": codes / floor_s,
        "codes_per_s": {name: codes / statistics.median(t) for name, t in took.items()},
        "share_of_floor": floor_s / statistics.median(took["ours"]),
    }  # fmt: skip
    for name, kind in list(own_names(args.weights).items())[1:]:
        pairs = zip(took["ours"], took[name], strict=True)
        said[f"{kind}_to_{args.weights[0]}"] = statistics.median(a / b for a, b in pairs)
    for name in args.peers:
        pairs = zip(took[name], took["ours"], strict=True)
        said[RATIOS[name]] = statistics.median(theirs / own for theirs, own in pairs)
    return said


def main() -> None:
    """Measure and print."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--shape", choices=SHAPES, default="b")
    flags.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    flags.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    flags.add_argument("--turns", type=int, default=3)
    flags.add_argument(
        "--weights", nargs="+", choices=WEIGHTS, default=["float32"],
        help="of ours; the first is what others are compared with",
    )  # fmt: skip
    flags.add_argument("--json", type=Path)
    args = flags.parse_args()
    device = jax.devices()[0]
    machine = {
        "device": device.device_kind, "platform": device.platform,
        "copy_bytes_per_s": copy_bytes_per_s(), "matmul_flops_per_s": matmul_flops_per_s(),
    }  # fmt: skip
    print(f"{machine['device']}: copies {machine['copy_bytes_per_s'] / 1e9:.1f} GB/s (read and "
          f"written), multiplies at {machine['matmul_flops_per_s'] / 1e9:.0f} GFLOP/s")  # fmt: skip
    rows = {}
    for batch in args.batch:
        rows[str(batch)] = said = generation(SHAPES[args.shape], batch, args, machine)
        speeds = ", ".join(f"{n} {v:.1f}" for n, v in said["codes_per_s"].items())
        print(f"batch {batch}: codes/s {speeds}; floor {said['floor_codes_per_s']:.1f}, ours is "
              f"{said['share_of_floor']:.2f} of it", flush=True)  # fmt: skip
        for name in args.peers:
            print(f"  {said[RATIOS[name]]:.2f} times {name}")
    if args.json:
        found = {"machine": machine, "shape": args.shape, "generation": rows}
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
