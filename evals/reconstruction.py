"""How well a tokenizer keeps pages it never saw: pixels, codes and words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from evals.health import alarms, code_use
from evals.metrics.pixels import psnr_db, ssim
from evals.readers import RapidReader
from evals.reading_back import read_back
from train.log import Evaluation
from train.probes import Probes

_PICTURES = 8


class Reconstructions:
    """An evaluator over a source of pages; the loop calls it with the tokenizer's probes."""

    def __init__(self, pages: Any) -> None:
        self._source = pages
        self._reader = RapidReader()

    def __call__(self, step: int, probes: Probes) -> Evaluation:
        """PSNR, SSIM, use of codes, and the scores of what can still be read; it raises the
        alarm when the codebook has collapsed."""
        records = [self._source[i] for i in range(len(self._source))]
        pages = np.stack([record["pixels"] for record in records])
        codes = np.asarray(probes["encode"](pages))
        again = np.asarray(probes["decode"](codes))
        size = int(probes["codebook_size"]())
        scalars = {
            "psnr_db": psnr_db(pages, again),
            "ssim": ssim(pages, again),
            **read_back(self._reader, [r["blueprint"] for r in records], again),
            "bits_per_px": codes[0].size * math.log2(size) / pages[0, ..., 0].size,
            **code_use(codes, size),
        }
        shown = zip(pages[:_PICTURES], again[:_PICTURES], strict=True)
        sheet = np.concatenate([np.concatenate(pair, axis=0) for pair in shown], axis=1)
        return Evaluation(scalars, {"reconstructions": sheet}, alarms(codes, size))
