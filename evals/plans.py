"""How well a planner lays out prompts it never saw, while it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from blueprint.check import copy_fidelity, findings
from blueprint.fitting import overlap
from blueprint.plan import to_pixels
from blueprint.schema import Blueprint, Box
from evals.report import sheet
from train.log import Evaluation
from train.loop import Probes

_PICTURES = 8


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, from 0 to 1."""
    shared = overlap(a, b)
    return shared / (a.width * a.height + b.width * b.height - shared)


def agreement(plan: Blueprint, reference: Blueprint) -> dict[str, float]:
    """How alike two plans for one prompt are: do they have as many elements of each kind, and how
    far do the boxes of their verbatim texts, in order, agree."""
    kinds = [sorted(type(e).__name__ for e in page.elements) for page in (plan, reference)]
    texts = [[t for t in page.texts if t.source == "verbatim"] for page in (plan, reference)]
    pairs = list(zip(*texts, strict=False))
    return {
        "same_elements": float(kinds[0] == kinds[1]),
        "box_iou": float(np.mean([box_iou(a.box, b.box) for a, b in pairs])) if pairs else 1.0,
    }


class PlannedPages:
    """An evaluator over a source of plans; `make(probes, prompts)` has the planner's plans."""

    def __init__(
        self, pages: Any, make: Callable[[Probes, Sequence[str]], Sequence[Blueprint]]
    ) -> None:
        self._records = [pages[i] for i in range(len(pages))]
        self._make = make

    def __call__(self, step: int, probes: Probes) -> Evaluation:
        """Copy fidelity, findings a page, and agreement with the pages' own plans."""
        prompts = [record["prompt"] for record in self._records]
        plans = self._make(probes, prompts)
        rows = [
            {
                "copy_fidelity": copy_fidelity(record["prompt"], plan),
                "findings": float(len(findings(plan))),
                **agreement(plan, record["blueprint"]),
            }
            for record, plan in zip(self._records, plans, strict=True)
        ]
        scalars = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        shown = [to_pixels(plan, scale=2) for plan in plans[:_PICTURES]]
        return Evaluation(scalars, {"plans": sheet(shown, prompts[:_PICTURES], columns=4)})
