"""The data pipeline: pages a second and core of the procedural pages and of the loader, against
what a training step eats."""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decoder.conditioning import ConditioningConfig
from decoder.task import example
from pipeline.runs import pixels_only
from scripts.bench.pages import contract_of, encoding, rates, style, toy_coder
from scripts.bench.report import Report
from scripts.bench.sections import train
from train.data.batching import batches, iterate
from train.data.codes import open_cache
from train.data.encoding import encode
from train.data.sources import Pages

LETTERS = 2048  # more than any page has


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Those of the data."""
    flags.add_argument("--pages", type=int, default=128, help="that are drawn and encoded")


def loaded(source: Any, transform: Callable[..., Any], num_rows: int) -> dict[str, float]:
    """The loader's rows, in batches of 4, shuffled, by one process."""
    size = min(4, num_rows)
    dataset = batches([source], transform, batch_size=size, seed=0)
    steps = num_rows // size
    return rates(lambda: [len(b) for b in iterate(dataset, 0, steps)], size * steps)


def measure(report: Report, args: argparse.Namespace) -> None:
    """Pages, the loader's rows for a tokenizer and (from a code cache) for a decoder; the steps
    that eat them are those of `train`, which are measured here if they were not."""
    if "train" not in report.found:
        train.measure(report, argparse.Namespace(**{**vars(args), "peers": []}))
    pages, px = Pages(style(args.page_px), args.pages), args.page_px
    _ = [pages[i] for i in range(min(args.pages, 8))]  # fonts are opened once
    found: dict[str, Any] = {
        "page_px": px,
        "pages": rates(lambda: [pages[i] for i in range(args.pages)], args.pages),
    }
    contract = contract_of(args.tokenizer_shape, px)
    config = ConditioningConfig(contract["downsampling"], max_characters=LETTERS)
    with tempfile.TemporaryDirectory() as folder:
        encode(encoding(toy_coder(contract), px, args.pages, Path(folder)))
        transform = functools.partial(example, config=config)
        loader = {
            "tokenizer": loaded(pages, pixels_only, args.pages),
            "decoder": loaded(open_cache(Path(folder)), transform, args.pages),
        }
    rows = [("procedural pages", found["pages"]["per_s"], found["pages"]["per_core_s"], None, None)]
    for kind, rate in loader.items():
        eaten = report.found["train"].get(kind, {})
        found[kind] = {**rate, "step_rows_per_s": eaten.get("rows_per_s")}
        if eaten:
            found[kind]["cores_a_device"] = eaten["rows_per_s"] / rate["per_core_s"]
        rows.append((
            f"rows for a {kind}", rate["per_s"], rate["per_core_s"], eaten.get("rows_per_s"),
            found[kind].get("cores_a_device"),
        ))  # fmt: skip
    report.put("data", found)
    head = ("what", "a second", "a second of a core", "the step eats a second", "cores a device")
    report.table(f"Data, pages of {px} px", head, rows)
