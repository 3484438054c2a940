"""How well a decoder prints given blueprints it never saw, while it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from evals.metrics.pixels import psnr_db
from evals.readers import RapidReader
from evals.reading_back import read_back
from train.log import Evaluation
from train.probes import Probes

_PICTURES = 8


class PrintedPages:
    """An evaluator over a source of pages; `make(probes, records)` prints their blueprints: uint8
    [B Y X 3], and what there is to say of it beside."""

    def __init__(
        self,
        pages: Any,
        make: Callable[[Probes, Sequence[Any]], tuple[np.ndarray, Mapping[str, float]]],
    ) -> None:
        self._source = pages
        self._make = make
        self._reader = RapidReader()

    def __call__(self, step: int, probes: Probes) -> Evaluation:
        """The scores of what can be read, the distance to the real pages, and what `make`
        found."""
        records = [self._source[i] for i in range(len(self._source))]
        pages = np.stack([record["pixels"] for record in records])
        printed, found = self._make(probes, records)
        scalars = {
            **read_back(self._reader, [r["blueprint"] for r in records], printed),
            "psnr_db": psnr_db(pages, printed),
            **found,
        }
        shown = zip(pages[:_PICTURES], printed[:_PICTURES], strict=True)
        pairs = [np.concatenate(pair, axis=0) for pair in shown]
        return Evaluation(scalars, {"prints": np.concatenate(pairs, axis=1)})
