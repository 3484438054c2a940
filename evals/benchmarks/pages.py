"""Our own benchmark: held-out procedural pages whose every string the prompt quotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blueprint.check import copy_fidelity
from blueprint.schema import Blueprint
from evals.attribution import attribute
from evals.controls import control_scores
from evals.metrics.words import word_accuracy, word_precision
from evals.readers import RapidReader
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import Page, page

FIRST_SEED = 1_000_000


def cases(num_pages: int, *, width_px: int = 128, height_px: int = 128) -> list[Page]:
    """The first pages of the benchmark: fixed seeds, strings and some fonts that training never
    sees."""
    style = PageStyle(width_px, height_px, split="heldout", quoted="all")
    return [page(FIRST_SEED + i, style) for i in range(num_pages)]


def score(
    cases: Sequence[Page],
    reads: Mapping[str, Sequence[Sequence[str]]],
    plans: Sequence[Blueprint | None],
    reader: RapidReader,
    *,
    copied: Sequence[Sequence[str]],
) -> dict[str, Any]:
    """Everything about a run of the benchmark, as plain JSON.

    `reads` has the words read after each stage, `copied` those of the decoder's canonical pages
    through the tokenizer alone; `plans` the planner's blueprints, None for an invalid one.
    """
    targets = [case.blueprint.words for case in cases]
    copies = [
        copy_fidelity(case.prompt, plan) if plan else 0.0
        for case, plan in zip(cases, plans, strict=True)
    ]
    domains = {}
    for domain in sorted({case.domain for case in cases}):
        chosen = [i for i, case in enumerate(cases) if case.domain == domain]
        domains[domain] = {
            stage: word_accuracy([targets[i] for i in chosen], [rows[i] for i in chosen])
            for stage, rows in reads.items()
        }
    accuracy = {stage: word_accuracy(targets, rows) for stage, rows in reads.items()}
    return {
        "benchmark": "pages",
        "num_pages": len(cases),
        "num_words": sum(map(len, targets)),
        "reader": reader.name,
        "word_accuracy": accuracy,
        "word_precision": {stage: word_precision(targets, rows) for stage, rows in reads.items()},
        "by_domain": domains,
        "copy_fidelity": sum(copies) / len(copies),
        "valid_blueprints": sum(plan is not None for plan in plans) / len(plans),
        "controls": {
            **control_scores(targets, reads["end_to_end"], reader),
            "copied_canonical_page": word_accuracy(targets, copied),
            "typeset_ceiling": accuracy["typeset"],
        },
        "attribution": attribute(targets, reads),
    }
