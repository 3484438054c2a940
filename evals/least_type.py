"""The least type that a bundle was measured to print legibly, kept beside its models.

`legibility.json` names the weights it was measured with, for it says nothing about others: trained
on, a tokenizer or decoder may print smaller type, or need larger.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

from absl import logging

from evals.evaluation import legible_px
from evals.results import Results
from train.export.seal import is_sealed

FILE = "legibility.json"
MEASURED_ON = ("pages-sizes",)  # others have no type small enough to find where it stops


@dataclasses.dataclass(frozen=True)
class LeastType:
    """Type of `legible_px` and more is legible as these `weights` (a hash for each model's name)
    print it; and what says so."""

    legible_px: float
    weights: Mapping[str, str]
    benchmark: str
    num_cases: int
    reader: Mapping[str, str]
    command: str


class LeastTypeError(ValueError):
    """A `legibility.json` that cannot be understood."""


def measured(results: Results, weights: Mapping[str, str]) -> LeastType | None:
    """What an evaluation of models with these weights says of the least type; None where its
    benchmark has no type small enough, or its words were too few or nowhere legible."""
    least = legible_px(results) if results.benchmark in MEASURED_ON else None
    if least is None:
        return None
    told = results.benchmark, results.num_cases, results.reader, results.command
    return LeastType(least, dict(weights), *told)


def keep(folder: Path, found: LeastType) -> str:
    """Write it into a bundle's folder, whole or not at all, and say in a sentence what came of it:
    one of the same weights on more cases stays, and a folder may be read-only or sealed."""
    if is_sealed(folder):
        return (
            f"type of {found.legible_px:g} px and more is legible; {folder} is sealed and stays as "
            "it is: give the scores to scripts/draw.py with --scores, or export its runs again"
        )
    path, there = folder / FILE, _load(folder)
    if there and there.weights == found.weights and there.num_cases > found.num_cases:
        return (
            f"{path} stays as it is: {there.num_cases} cases gave {there.legible_px:g} px, these "
            f"{found.num_cases} give {found.legible_px:g} px"
        )
    draft = path.with_suffix(".part")
    try:
        draft.write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n")
        os.replace(draft, path)
    except OSError as problem:
        return f"plans will not know that {found.legible_px:g} px is the least type: {problem}"
    return f"type of {found.legible_px:g} px and more is legible; plans will prefer it: {path}"


def known_px(folder: Path, weights: Mapping[str, str]) -> float | None:
    """The least legible type of models with these weights, in pixels of their pages; None where it
    was never measured, or, with a warning, only with other weights.

    Raises `LeastTypeError` for a file that cannot be understood.
    """
    there = _load(folder)
    if there is None:
        return None
    if other := [name for name in weights if there.weights.get(name) != weights[name]]:
        logging.warning(
            "%s was measured with another %s: its %g px are not used; evaluate this bundle on %s",
            folder / FILE, " and ".join(other), there.legible_px, there.benchmark,
        )  # fmt: skip
        return None
    return float(there.legible_px)


def _load(folder: Path) -> LeastType | None:
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = LeastType(**json.loads(path.read_text(encoding="utf-8")))
        sound = found.legible_px > 0 and found.num_cases > 0 and dict(found.weights)
    except (ValueError, TypeError) as problem:
        raise LeastTypeError(f"{path} cannot be understood ({problem}): remove it") from None
    if not sound:
        raise LeastTypeError(f"{path} says nothing of any type: remove it")
    return found
