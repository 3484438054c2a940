"""How well a planner lays out prompts it never saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from blueprint.check import RULES, copy_fidelity, findings
from blueprint.plan import to_pixels
from blueprint.schema import Blueprint, Box, Element, Picture
from evals.metrics.placing import intersection_over_union
from evals.report import sheet
from evals.scoring import Case
from train.log import Evaluation
from train.probes import Probes

_PICTURES = 8


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, from 0 to 1."""
    rects = ((box.left, box.top, box.width, box.height) for box in (a, b))
    return intersection_over_union(*rects)


def _label(element: Element) -> str:
    """What has to be the same for two elements to stand for each other."""
    return "picture" if isinstance(element, Picture) else f"{type(element).__name__} {element.kind}"


def max_iou(plan: Blueprint, reference: Blueprint) -> float:
    """How far the boxes of two plans agree under the best assignment of elements of the same kind:
    the sum of their IoU over the larger number of elements of each kind, 1 for two empty pages.

    MaxIoU of Kikuchi et al. 2021 (LayoutGAN++, arXiv 2108.00871). There a layout is
    compared with every real one that has just the same labels, and the best assignment of
    collections is taken; here with its own prompt's page, whatever it has, and elements that only
    one of the two has count as 0.
    """
    sides = []
    for page in (plan, reference):
        kinds: dict[str, list[Box]] = {}
        for element in page.elements:
            kinds.setdefault(_label(element), []).append(element.box)
        sides.append(kinds)
    total, agreed = 0, 0.0
    for kind in sides[0].keys() | sides[1].keys():
        here, there = (side.get(kind, []) for side in sides)
        total += max(len(here), len(there))
        if here and there:
            ious = np.array([[box_iou(a, b) for b in there] for a in here])
            agreed += ious[linear_sum_assignment(ious, maximize=True)].sum()
    return float(agreed / total) if total else 1.0


def agreement(plan: Blueprint, reference: Blueprint) -> dict[str, float]:
    """How alike two plans for one prompt are: whether they have as many elements of each class, how
    far the boxes of their verbatim texts, in order, agree, which share of these texts have as many
    lines, and `max_iou`."""
    kinds = [sorted(type(e).__name__ for e in page.elements) for page in (plan, reference)]
    texts = [[t for t in page.texts if t.source == "verbatim"] for page in (plan, reference)]
    pairs = list(zip(*texts, strict=False))
    same = [len(a.lines) == len(b.lines) for a, b in pairs]
    return {
        "same_elements": float(kinds[0] == kinds[1]),
        "box_iou": float(np.mean([box_iou(a.box, b.box) for a, b in pairs])) if pairs else 1.0,
        "same_line_counts": float(np.mean(same)) if pairs else 1.0,
        "max_iou": max_iou(plan, reference),
    }


def plan_scores(cases: Sequence[Case], plans: Sequence[Blueprint | None]) -> dict[str, float]:
    """Means over cases of how well they were planned; None is a plan that is no valid blueprint.

    `valid`; `copy_fidelity` (the share of quoted strings that stand on the page, in order); and,
    where the cases have blueprints, `agreement` with these: of all of this an invalid plan has
    nothing. Of the valid plans, if there are any, `findings` a page, in all and by each rule of
    `blueprint/check.py`.

    Raises `ValueError` when there are no cases, or not as many plans.
    """
    if not cases or len(cases) != len(plans):
        raise ValueError(
            f"{len(plans)} plans for {len(cases)} cases: hand in one for each, or None"
        )
    rows: list[dict[str, float]] = []
    for case, plan in zip(cases, plans, strict=True):
        row = {"valid": float(plan is not None), "copy_fidelity": 0.0}
        if case.blueprint is not None:
            row |= dict.fromkeys(agreement(case.blueprint, case.blueprint), 0.0)
        if plan is not None:
            row["copy_fidelity"] = copy_fidelity(case.prompt, plan)
            if case.blueprint is not None:
                row |= agreement(plan, case.blueprint)
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    scores = {n: float(np.mean([row[n] for row in rows if n in row])) for n in names}
    valid = [plan for plan in plans if plan is not None]
    if valid:
        found = Counter(finding.rule for plan in valid for finding in findings(plan))
        scores["findings"] = found.total() / len(valid)
        rules = [rule for rule in RULES if rule != "legibility"]  # which needs a measured floor
        for rule in rules:
            scores[f"findings_{rule.replace(' ', '_')}"] = found[rule] / len(valid)
    return scores


class PlannedPages:
    """An evaluator over a source of plans; `make(probes, prompts)` has the planner's plans."""

    def __init__(
        self, pages: Any, make: Callable[[Probes, Sequence[str]], Sequence[Blueprint]]
    ) -> None:
        records = [pages[i] for i in range(len(pages))]
        self._cases = [
            Case(f"page-{i}", record["prompt"], (), blueprint=record["blueprint"])
            for i, record in enumerate(records)
        ]
        self._make = make

    def __call__(self, step: int, probes: Probes) -> Evaluation:
        """The scores of `plan_scores`, and some plans to look at."""
        prompts = [case.prompt for case in self._cases]
        plans = self._make(probes, prompts)
        shown = [to_pixels(plan, scale=2) for plan in plans[:_PICTURES]]
        pictures = {"plans": sheet(shown, prompts[:_PICTURES], columns=4)}
        return Evaluation(plan_scores(self._cases, plans), pictures)
