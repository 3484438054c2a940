"""How fast, and how far from what the machine allows: `python scripts/benchmark.py [--json F]`.

Whatever is compared is of the same shape and random weights, and runs in turns within one process;
ratios are medians over the turns, each by itself. `--peers` names the others: a PyTorch loop of our
own, eager and under `torch.compile` (on a GPU with CUDA graphs), and transformers' compiled
`generate` (extra `bench`). `--only` leaves sections out:

generation  codes a second of a GPT of codes of LlamaGen's shapes, one code at a time, guided, with
            top-k. Beside each stands the floor: the bytes that a code must move over what the
            machine moves in a second, or its FLOPs over what a product of matrices reaches,
            whichever is longer. `share_of_floor` takes the rate of a copy, of which every byte is
            counted twice, as it is read and written; `share_of_read_floor` that of adding numbers
            up, where nothing is written: what a machine can do that has weights to read.
train       seconds of forward, backward and update of a decoder and of a tokenizer, tokens or
            images a second, FLOP/s and their share of a product's.
data        pages a second and core of the procedural pages and of the loader, and how many cores
            feed the training steps.
startup     seconds of import, construction and compiling, in processes of their own, without a
            persistent compilation cache, with an empty one and with a filled one.
elsewhere   the tokenizer's images a second, the planner's blueprints with the grammar on, and
            whether `encode.py` codes pages as fast as its slower half.
mfu         only if asked for: the whole step of `--config` (the large decoders) on one device, over
            pages as the config draws them with random codes; FLOP/s, their share of the device's
            peak, and with `--kernels N` where the time goes.

On one GPU, all of it in under ten minutes (what begins after `--limit-s` is left out, and said):

    python scripts/benchmark.py --shape xl 3b --dtype bfloat16 --batch 1 64 \\
        --peers eager compiled --json F
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory too

import jax

from scripts.bench.machine import Machine
from scripts.bench.report import Report
from scripts.bench.sections import data, elsewhere, generation, mfu, startup, train

SECTIONS = {
    "generation": generation, "train": train, "data": data, "startup": startup,
    "elsewhere": elsewhere, "mfu": mfu,
}  # fmt: skip
USUAL = [name for name in SECTIONS if name != "mfu"]
LIMIT_S = 420.0  # on a GPU, where what was begun last may compile for two minutes


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags, those of every section among them (of the command line, if nothing is given)."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--only", nargs="+", choices=SECTIONS, default=USUAL)
    flags.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    flags.add_argument("--turns", type=int, default=3)
    flags.add_argument("--floor-mib", type=int, default=512, help="of arrays to copy and to read")
    flags.add_argument("--json", type=Path)
    flags.add_argument("--markdown", action="store_true", help="tables as documents have them")
    flags.add_argument("--limit-s", type=float, help="0 for none: on a CPU")
    for section in SECTIONS.values():
        section.add_flags(flags)
    args, args.changes = flags.parse_known_args(arguments)
    if unknown := [word for word in args.changes if not word.startswith("--config.")]:
        flags.error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.limit_s is None:
        args.limit_s = 0.0 if jax.default_backend() == "cpu" else LIMIT_S
    return args


def main() -> None:
    """Measure and print."""
    args = parsed()
    machine = Machine.measured([args.dtype], size_bytes=args.floor_mib << 20)
    report = Report(machine, args.json, args.markdown, args.limit_s)
    report.put("machine", dataclasses.asdict(machine))
    report.put("command", " ".join(["python", *sys.argv]))
    report.table("Machine", ("device", "cores", "copies (read + written)", "reads", "products"), [[
        machine.device, machine.cores, f"{machine.copy_bytes_per_s / 1e9:.1f} GB/s",
        f"{machine.read_bytes_per_s / 1e9:.1f} GB/s",
        ", ".join(f"{v / 1e9:.0f} GFLOP/s in {k}" for k, v in machine.matmul_flops_per_s.items()),
    ]])  # fmt: skip
    for name in SECTIONS:
        if name in args.only and not report.is_late(name):
            SECTIONS[name].measure(report, args)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
