"""Speed elsewhere: the tokenizer's two halves, the planner under its grammar, and the making of a
code cache beside its parts."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

import pipeline
from blueprint import codec
from pipeline.printing import plates_of
from sampling.planning import plan_pages
from scripts.bench.pages import contract_of, encoding, fresh, rates, real_coder
from scripts.bench.report import Report
from scripts.bench.training import page_batch, tokenizer_task
from scripts.bench.turns import in_turns, median, timed
from train import config as configs
from train.config import build
from train.data.encoding import Encoding, encode
from train.data.sources import DataConfig, Plans, heldout

BATCHES = (1, 16)


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Those of the rest."""
    cpu = jax.default_backend() == "cpu"
    cores = len(os.sched_getaffinity(0))
    flags.add_argument("--planner", type=Path, default=Path("configs/demo/planner.py"),
                       help="whose shape plans")  # fmt: skip
    flags.add_argument("--prompts", type=int, default=32)
    flags.add_argument("--num-workers", type=int, default=0 if cpu else max(1, cores - 1),
                       help="that draw pages to be encoded")  # fmt: skip


def measure(report: Report, args: argparse.Namespace) -> None:
    """Tokenizer, planner, code cache."""
    found: dict[str, Any] = {}
    for name, part in {"tokenizer": tokenizer, "planner": planner, "encode": coding}.items():
        if not report.is_late(f"elsewhere, {name}"):
            found[name] = part(report, args)
            report.put("elsewhere", found)


def tokenizer(report: Report, args: argparse.Namespace) -> dict[str, Any]:
    """Images a second of encoding and decoding arrays that lie on the device."""
    probes = fresh(tokenizer_task(args.tokenizer_shape, dtype=args.dtype))
    found: dict[str, Any] = {"shape": args.tokenizer_shape, "page_px": args.page_px}
    rows = []
    for batch in BATCHES:
        pixels = jax.device_put(page_batch(args.page_px, batch)["pixels"])
        codes = probes["encode"](pixels)
        runs = {
            "encode": lambda pixels=pixels: jax.block_until_ready(probes["encode"](pixels)),
            "decode": lambda codes=codes: jax.block_until_ready(probes["decode"](codes)),
        }
        for once in runs.values():
            once()
        took = in_turns(runs, max(args.turns, 3))
        rate = {f"{name}_images_per_s": batch / median(t) for name, t in took.items()}
        found[str(batch)] = rate
        rows.append((batch, *rate.values()))
    title = f"Tokenizer {args.tokenizer_shape}, {args.page_px} px, {args.dtype}"
    report.table(title, ("batch", "encodes images/s", "decodes images/s"), rows)
    return found


def planner(report: Report, args: argparse.Namespace) -> dict[str, Any]:
    """Blueprints a second of a planner of random weights, which the grammar leads to the end: as
    long as they may be rather than as long as pages are."""
    config: Any = configs.load(args.planner)
    task, data = pipeline.planner_task(config), build(DataConfig, config.data, path="config.data")
    plates, source = plates_of(data, task.model), Plans(heldout(data.page), args.prompts)
    prompts, probes = [source[i]["prompt"] for i in range(args.prompts)], fresh(task)
    plans: list[Any] = []

    def plan() -> None:
        plans[:] = plan_pages(probes, prompts, plates)

    first_s = timed(plan)
    took_s = median(in_turns({"ours": plan}, args.turns)["ours"])
    num_ids = sum(len(codec.encode(blueprint)) for blueprint in plans)
    found = {
        "config": str(args.planner), "prompts": len(prompts), "first_run_s": first_s,
        "blueprints_per_s": len(prompts) / took_s, "ids_per_s": num_ids / took_s,
        "ids_a_blueprint": num_ids / len(prompts),
    }  # fmt: skip
    head = ("shape", "prompts", "blueprints/s", "ids/s", "ids a blueprint", "first run s")
    report.table("Planner, random weights, with the grammar", head, [[
        args.planner, len(prompts), found["blueprints_per_s"], found["ids_per_s"],
        found["ids_a_blueprint"], first_s,
    ]])  # fmt: skip
    return found


def _drawing(job: Encoding) -> dict[str, float]:
    """Pages and their canonical pages, drawn by this process."""
    return rates(
        lambda: [job.drawn(part) for shard in range(job.num_shards) for part in job.chunks(shard)],
        job.num_records,
    )


def _device(job: Encoding) -> dict[str, float]:
    """The bare programs over arrays that are ready: two pictures a page."""
    _, pictures = job.drawn(job.chunks(0)[0])
    ready = [jax.device_put(np.stack(pages)) for pages in pictures.values()]
    times, size = max(1, job.num_records // job.chunk), len(ready[0])
    jax.block_until_ready([job.coder.encode(pages) for pages in ready])

    def work() -> None:
        for _ in range(times):
            jax.block_until_ready([job.coder.encode(pages) for pages in ready])

    return rates(work, times * size)


def coding(report: Report, args: argparse.Namespace) -> dict[str, Any]:
    """`encode.py`'s pages a second against the slower of drawing (by all its workers) and encoding.
    Where both share the cores, as on a CPU, their processor time together bounds it as well. What
    does not grow with the pages (reading some back, starting workers) is taken off by the time that
    a few take, and told apart. Sixteen pages are encoded at a time: give `--pages` a multiple of
    64."""
    contract = contract_of(args.tokenizer_shape, args.page_px)
    coder = real_coder(args.tokenizer_shape, contract, dtype=args.dtype)
    with tempfile.TemporaryDirectory() as folder:
        job = encoding(coder, args.page_px, args.pages, Path(folder))
        few = encoding(coder, args.page_px, max(1, args.pages // 4), Path(folder) / "few")
        warm = encoding(coder, args.page_px, few.num_records, Path(folder) / "warm")
        encode(warm, num_workers=args.num_workers)
        drawn, device = _drawing(job), _device(job)
        few_s, all_s = (
            timed(lambda j=j: encode(j, num_workers=args.num_workers)) for j in (few, job)
        )
    page_s = (all_s - few_s) / (job.num_records - few.num_records)
    fixed_s, pages_per_s = few_s - few.num_records * page_s, 1 / page_s
    data_per_s = drawn["per_core_s"] * max(1, args.num_workers)
    bound = min(data_per_s, device["per_s"])
    if report.machine.platform == "cpu":
        busy_s = 1 / drawn["per_core_s"] + 1 / device["per_core_s"]
        bound = min(bound, report.machine.cores / busy_s)
    found = {
        "pages_per_s": pages_per_s, "fixed_s": fixed_s, "drawing": drawn, "device": device,
        "num_workers": args.num_workers, "bound_pages_per_s": bound,
        "share_of_bound": pages_per_s / bound,
    }  # fmt: skip
    head = ("workers", "draws pages/s a core", "device pages/s", "both bound it to",
            "encode.py pages/s", "share", "and once, s")  # fmt: skip
    report.table("Code cache", head, [[
        args.num_workers, drawn["per_core_s"], device["per_s"], bound, pages_per_s,
        found["share_of_bound"], fixed_s,
    ]])  # fmt: skip
    return found
