"""Cases printed by a bundle, stage by stage: what tells who lost a word."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from blueprint.formats import from_json, to_json
from blueprint.schema import Blueprint
from evals.attribution import STAGES
from evals.scoring import Case
from pipeline.bundle import Bundle
from train.distributed.protocol import Cluster

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
    return _joined([_printed(bundle, cases, start, seed) for start in _starts(cases)])


def staged(
    bundle: Bundle, cases: Sequence[Case], typeset: Sequence[np.ndarray], *, seed: int = 0
) -> Staged:
    """All four stages of cases that have a blueprint, `typeset` among them as it was given, and
    the copied control."""
    return _joined([_staged(bundle, cases, typeset, start, seed) for start in _starts(cases)])


def make_share(
    bundle: Bundle,
    cases: Sequence[Case],
    typeset: Sequence[np.ndarray] | None,
    *,
    seed: int = 0,
    cluster: Cluster,
    folder: Path,
) -> tuple[list[Case], Staged]:
    """This process's share of the cases, chunk by chunk in turn, and of what `staged` (`printed`
    without `typeset`) makes of all of them; kept in `folder` for `take_shares`."""
    own, parts = [], []
    for k, start in enumerate(_starts(cases)):
        if k % cluster.num_processes == cluster.process_index:
            if typeset is None:
                part = _printed(bundle, cases, start, seed)
            else:
                part = _staged(bundle, cases, typeset, start, seed)
            _keep(folder / f"{start:08d}.npz", part)
            own += cases[start : start + CHUNK]
            parts.append(part)
    return own, _joined(parts)


def take_shares(cases: Sequence[Case], folder: Path) -> Staged:
    """The whole, the same as one process makes, once every process has made its share; the folder
    is removed. Raises `OSError` when a part is not there."""
    whole = _joined([_kept(folder / f"{start:08d}.npz") for start in range(0, len(cases), CHUNK)])
    shutil.rmtree(folder)
    return whole


def _starts(cases: Sequence[Case]) -> Iterable[int]:
    return tqdm(range(0, len(cases), CHUNK), desc="print", unit="chunk", mininterval=5)


def _printed(bundle: Bundle, cases: Sequence[Case], start: int, seed: int) -> Staged:
    plans = bundle.plan([c.prompt for c in cases[start : start + CHUNK]], seed=seed + start)
    return Staged(plans, {"end_to_end": list(bundle.pixels(bundle.codes(plans)))})


def _staged(
    bundle: Bundle, cases: Sequence[Case], typeset: Sequence[np.ndarray], start: int, seed: int
) -> Staged:
    whole = _printed(bundle, cases, start, seed)
    given = [c.blueprint for c in cases[start : start + CHUNK] if c.blueprint is not None]
    real = list(typeset[start : start + CHUNK])
    found = {
        "typeset": real,
        "reconstructed": list(bundle.pixels(bundle.tokenizer.ask("encode", np.stack(real)))),
        "given_blueprint": list(bundle.pixels(bundle.codes(given))),
        COPIED: list(bundle.copied(given)),
        **whole.pages,
    }
    return Staged(whole.plans, {stage: found[stage] for stage in (*STAGES, COPIED)})


def _joined(parts: Sequence[Staged]) -> Staged:
    stages = list(parts[0].pages) if parts else []
    pages = {stage: [page for part in parts for page in part.pages[stage]] for stage in stages}
    return Staged([plan for part in parts for plan in part.plans], pages)


def _keep(path: Path, part: Staged) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    with draft.open("wb") as file:
        arrays = {stage: np.stack(pages) for stage, pages in part.pages.items()}
        np.savez(file, plans=np.array([to_json(plan) for plan in part.plans]), **arrays)
    os.replace(draft, path)


def _kept(path: Path) -> Staged:
    with np.load(path) as file:
        pages = {name: list(file[name]) for name in file.files if name != "plans"}
        return Staged([from_json(str(text)) for text in file["plans"]], pages)
