"""How well a line recogniser reads pages it never saw, given their boxes, while it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from evals.metrics.words import character_error_rate
from train.log import Evaluation
from train.probes import Probes

CHUNK = 16  # pages read at once


def text_of(ids: np.ndarray) -> str:
    """Bytes plus 1, with zeros between and behind, as a string; what is no UTF-8 becomes U+FFFD."""
    return bytes(int(i) - 1 for i in ids if i).decode("utf-8", errors="replace")


class RecognisedLines:
    """An evaluator over a source of pages; `example(record)` has their `pixels`, `line_boxes` and
    `line_bytes`."""

    def __init__(self, pages: Any, example: Callable[[Any], Mapping[str, np.ndarray]]) -> None:
        self._pages = pages
        self._example = example

    def __call__(self, step: int, probes: Probes) -> Evaluation:
        """The share of lines read exactly, and edits a character."""
        wanted: list[str] = []
        read: list[str] = []
        for start in range(0, len(self._pages), CHUNK):
            stop = min(start + CHUNK, len(self._pages))
            rows = [self._example(self._pages[i]) for i in range(start, stop)]
            batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
            found = np.asarray(probes["read"](batch["pixels"], batch["line_boxes"]))
            for page, place in np.argwhere(batch["line_bytes"][..., 0] > 0):
                wanted.append(text_of(batch["line_bytes"][page, place]))
                read.append(text_of(found[page, place]))
        exact = [a == b for a, b in zip(wanted, read, strict=True)]
        return Evaluation(
            {
                "line_accuracy": float(np.mean(exact)) if exact else 1.0,
                "character_error_rate": character_error_rate(wanted, read),
                "num_lines": float(len(exact)),
            }
        )
