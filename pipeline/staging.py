"""Cases printed by a bundle, stage by stage: what tells who lost a word."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from blueprint.schema import Blueprint
from evals.attribution import STAGES
from evals.scoring import Case
from pipeline.bundle import Bundle

CHUNK = 32  # pages planned and printed at once
COPIED = "copied"  # a control without a decoder
SAID = {COPIED: "the canonical page of each true blueprint, through the tokenizer alone"}


@dataclasses.dataclass(frozen=True)
class Staged:
    """The planner's blueprint of each case, and uint8 [Y X 3] pages by stage, `COPIED` among
    them."""

    plans: list[Blueprint]
    pages: dict[str, list[np.ndarray]]


def printed(bundle: Bundle, cases: Sequence[Case], *, seed: int = 0) -> Staged:
    """Plan and print every prompt: the stage `end_to_end` alone."""
    staged = Staged([], {"end_to_end": []})
    for start in tqdm(range(0, len(cases), CHUNK), desc="print", unit="chunk", mininterval=5):
        plans = bundle.plan([c.prompt for c in cases[start : start + CHUNK]], seed=seed + start)
        staged.plans.extend(plans)
        staged.pages["end_to_end"] += list(bundle.pixels(bundle.codes(plans)))
    return staged


def staged(
    bundle: Bundle, cases: Sequence[Case], typeset: Sequence[np.ndarray], *, seed: int = 0
) -> Staged:
    """All four stages of cases that have a blueprint, `typeset` among them as it was given, and
    the copied control."""
    whole = printed(bundle, cases, seed=seed)
    pages: dict[str, list[np.ndarray]] = {stage: [] for stage in (*STAGES, COPIED)}
    pages["typeset"] += typeset
    pages["end_to_end"] += whole.pages["end_to_end"]
    for start in range(0, len(cases), CHUNK):
        given = [c.blueprint for c in cases[start : start + CHUNK] if c.blueprint is not None]
        real = np.stack(typeset[start : start + CHUNK])
        codes = bundle.tokenizer.probes["encode"](real)
        pages["reconstructed"] += list(bundle.pixels(codes))
        pages["given_blueprint"] += list(bundle.pixels(bundle.codes(given)))
        pages[COPIED] += list(bundle.copied(given))
    return Staged(whole.plans, pages)
