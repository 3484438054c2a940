"""Start-up: a process is started anew for each measurement, so that nothing is remembered but what
a persistent compilation cache holds."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

import pipeline
from scripts.bench.generation import SHAPES, decoder_of, ours
from scripts.bench.report import Report
from scripts.bench.training import code_batch, step_of

ROOT = Path(__file__).resolve().parents[3]
CACHES = ("off", "empty", "filled")
COMPILING = "/jax/core/compile/backend_compile_duration"  # finding it in the cache too


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Those of start-up."""
    flags.add_argument("--bundle", type=Path, help="whose loading is timed as well")


def train(shape: str, dtype: str, rows: int) -> Any:
    """One step of the decoder."""
    size = SHAPES[shape]
    step, state, batch = step_of(decoder_of(size, dtype=dtype), code_batch(size, rows))
    return lambda: jax.block_until_ready(step(state, batch))


def generation(shape: str, dtype: str, rows: int) -> Any:
    """One page."""
    return ours(SHAPES[shape], 1, dtype=dtype)


def child(kind: str, began: float, given: list[str]) -> dict[str, float]:
    """Seconds of this process: until its modules were imported, until what it runs was built
    (weights drawn, programs traced), of that by XLA, and of the first run."""
    imported, compiling = time.time(), []

    def note(event: str, duration_secs: float, **kwargs: Any) -> None:
        compiling.extend([duration_secs] if event == COMPILING else [])

    jax.monitoring.register_event_duration_secs_listener(note)
    if kind == "bundle":
        pipeline.load(given[0])
        first = lambda: None  # noqa: E731
    else:
        make = {"train": train, "generation": generation}[kind]
        first = make(given[0], given[1], int(given[2]))
    built, compile_s = time.time(), sum(compiling)
    first()
    ready = time.time()
    return {
        "import_s": imported - began, "build_s": built - imported - compile_s,
        "compile_s": compile_s, "first_run_s": ready - built, "total_s": ready - began,
    }  # fmt: skip


def run(kind: str, given: list[str], cache: Path | None) -> dict[str, float]:
    """What a process of its own says; raises `RuntimeError` with its last words."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    if cache is not None:
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    command = [sys.executable, "-m", "scripts.bench.sections.startup", kind, repr(time.time())]
    told = subprocess.run(
        [*command, *given], cwd=ROOT, env=environment, text=True, capture_output=True, check=False
    )
    if told.returncode:
        last = (told.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"start-up of {kind} failed: {last}")
    return json.loads(told.stdout.splitlines()[-1])


def measure(report: Report, args: argparse.Namespace) -> None:
    """Of a training step, of a page, and of a bundle if one is given."""
    shape = args.train_shape
    kinds = {
        "train": [shape, args.dtype, str(args.train_rows)],
        "generation": [shape, args.dtype, "1"],
    }
    if args.bundle:
        kinds["bundle"] = [str(args.bundle.resolve())]
    found: dict[str, Any] = {}
    for kind, given in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            for name in CACHES:
                if report.is_late(f"startup, {kind} with its cache {name}"):
                    continue
                cache = None if name == "off" else Path(folder)
                found.setdefault(kind, {})[name] = run(kind, given, cache)
                report.put("startup", {"shape": shape, "dtype": args.dtype, **found})
    names = ("import_s", "build_s", "compile_s", "first_run_s", "total_s")
    rows = [
        (kind, name, *(said[n] for n in names))
        for kind, caches in found.items() for name, said in caches.items()
    ]  # fmt: skip
    head = ("what", "cache", "import", "build and trace", "compile", "first run", "in all")
    report.table(f"Seconds of starting, shape {shape}", head, rows)


if __name__ == "__main__":
    print(json.dumps(child(sys.argv[1], float(sys.argv[2]), sys.argv[3:])))
