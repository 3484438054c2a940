"""Pages, codes and models without training, for what is measured of data and tokenizer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from decoder.conditioning import canonical_page
from scripts.bench.training import TOKENIZERS, tokenizer_task
from train.data.encoding import Coder, Encoding
from train.data.posters.canvas import PageStyle
from train.data.sources import Pages
from train.probes import Probes, Programs
from train.task import Task


def rates(work: Callable[[], Any], amount: int) -> dict[str, float]:
    """How many a second of the clock, and a second of processor time, all threads together: what a
    core does that has nothing else to do, whoever else is on the machine."""
    wall, busy = time.perf_counter(), time.process_time()
    work()
    busy = time.process_time() - busy
    return {"per_s": amount / (time.perf_counter() - wall), "per_core_s": amount / max(busy, 1e-9)}


def style(side_px: int) -> PageStyle:
    """Square pages, every string quoted."""
    return PageStyle(width_px=side_px, height_px=side_px, quoted="all")


def fresh(task: Task) -> Probes:
    """A task's probes with the weights that it begins with."""
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: task.init(nnx.Rngs(0))))

    def init() -> tuple[Any, Any]:
        _, params, extra = nnx.split(task.init(nnx.Rngs(0)), nnx.Param, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(extra)

    return Probes(Programs(task, graphdef), *jax.jit(init)())


def contract_of(name: str, side_px: int) -> dict[str, Any]:
    """A token contract of a tokenizer that never learnt."""
    config = TOKENIZERS[name]
    f, size = config.backbone.downsampling, config.quantizer.codebook.size
    return {
        "codebook_size": size, "num_codes": 1, "quantizer": "vq", "levels": [], "downsampling": f,
        "grid": [side_px // f] * 2, "scan": "raster", "weights": "random",
    }  # fmt: skip


def toy_coder(contract: dict[str, Any]) -> Coder:
    """Codes by picking pixels, which costs nothing: to measure what is around them."""
    f, size = contract["downsampling"], contract["codebook_size"]

    def encode(pixels: np.ndarray) -> np.ndarray:
        return pixels[:, ::f, ::f, :1].astype(np.int32) * 31 % size

    def decode(codes: np.ndarray) -> np.ndarray:
        rows, y, x, _ = np.shape(codes)
        return np.zeros((rows, y * f, x * f, 3), np.uint8)

    return Coder(encode, decode, canonical_page, contract)


def real_coder(name: str, contract: dict[str, Any], *, dtype: str) -> Coder:
    """A tokenizer's own programs."""
    probes = fresh(tokenizer_task(name, dtype=dtype))
    return Coder(probes["encode"], probes["decode"], canonical_page, contract)


def encoding(coder: Coder, side_px: int, num_pages: int, folder: Path) -> Encoding:
    """The code cache of so many procedural pages, in one shard: the last chunk of each is filled up
    with pages that do not count."""
    return Encoding(Pages(style(side_px), num_pages), folder, coder, {}, num_pages, 1)
