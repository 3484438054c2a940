"""Variants of one config under an equal time budget, as a table.

    python scripts/compare.py --variants configs/compare/quantizers.py --seconds 600 --out DIR

The variants file has `CONFIG` (a path), `VARIANTS` (name -> overrides) and `COLUMNS` (metrics to
show). Each variant is timed for a few steps, then trained for as many as fit the budget, with
schedules as long as that; finished variants are not run again. One comparison at a time.

Seconds are of processor time on a CPU, so that neighbours on the machine take nothing from a
variant, and of wall-clock time on an accelerator.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline
from train import config as configs
from train.log import Evaluation
from train.loop import train
from train.probes import Probes

PROBE_STEPS = 40  # timed after as many that compile and warm up


def clock() -> float:
    """Seconds since some moment: spent by this process on a CPU, else passed."""
    return time.process_time() if jax.default_backend() == "cpu" else time.monotonic()


def seconds_per_step(config: Any, folder: Path) -> float:
    """The time of a step once it is compiled."""
    probe = config.copy_and_resolve_references()
    with probe.unlocked():  # not every config names how often it evaluates
        probe.loop.update(
            num_steps=2 * PROBE_STEPS, checkpoint={"every_steps": 0}, eval_every_steps=PROBE_STEPS
        )
    run, marks = pipeline.run(probe), []

    def mark(step: int, probes: Probes) -> Evaluation:
        marks.append(clock())
        return Evaluation({})

    train(run.task, run.dataset, run.loop, folder, evaluate=mark)
    return (marks[1] - marks[0]) / PROBE_STEPS


def train_variant(config: Any, folder: Path, *, seconds: float) -> dict[str, float]:
    """Train for a budget and return the last evaluation, with `steps` and `seconds`."""
    step_s = seconds_per_step(config, folder / "probe")
    with config.unlocked():
        config.loop.update(
            num_steps=max(int(seconds / step_s), 1), checkpoint={"every_steps": 0},
            eval_every_steps=0,
        )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=1))
    run = pipeline.run(config)
    begin = clock()
    train(run.task, run.dataset, run.loop, folder, evaluate=run.evaluate)
    spent = clock() - begin
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = next(row for row in reversed(rows) if any(k.startswith("eval/") for k in row))
    found = {k.removeprefix("eval/"): v for k, v in last.items()}
    return {**found, "steps": config.loop.num_steps, "seconds": spent}


def table(rows: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> str:
    """Markdown, in the variants' order."""
    lines = ["| variant | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{row[c]:.4g}" if c in row else "" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse the flags, train every variant, write results.json and table.md."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--variants", type=Path, required=True)
    flags.add_argument("--seconds", type=float, default=600.0)
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--only", nargs="*", default=(), help="names of variants; all without it")
    args, overrides = flags.parse_known_args()
    if not args.variants.is_file():
        raise FileNotFoundError(f"there is no variants file {args.variants}")
    spec = importlib.util.spec_from_file_location("variants", args.variants)
    assert spec is not None and spec.loader is not None
    chosen = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chosen)
    if unknown := set(args.only) - set(chosen.VARIANTS):
        raise ValueError(
            f"no variant {', '.join(sorted(unknown))}; there are {', '.join(chosen.VARIANTS)}"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "results.json"
    rows = json.loads(results.read_text()) if results.exists() else {}
    columns = [*chosen.COLUMNS, "steps", "seconds"]
    for name, changes in chosen.VARIANTS.items():
        if name in rows or (args.only and name not in args.only):
            continue
        config = configs.load(chosen.CONFIG, [*changes, *overrides])
        folder = args.out / name.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        rows[name] = train_variant(config, folder, seconds=args.seconds)
        results.write_text(json.dumps(rows, indent=1) + "\n")
        jax.clear_caches()
        print(name, rows[name], flush=True)
    ordered = {name: rows[name] for name in chosen.VARIANTS if name in rows}
    (args.out / "table.md").write_text(table(ordered, columns) + "\n")
    print(table(ordered, columns))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
