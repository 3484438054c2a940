"""Is the plan a good one? Copy fidelity, and what a careful printer would send back."""

from __future__ import annotations

import dataclasses

from blueprint.breaking import fault, raggedness
from blueprint.copying import fold, quoted
from blueprint.fitting import (
    MIN_CONTRAST,
    MIN_TYPE_PX,
    PITCHES,
    SQUEEZED,
    contrast,
    covers,
    grounds,
    overlap,
    widest_px,
)
from blueprint.schema import Blueprint, Element, Text
from blueprint.typeset import size_px

NEARLY_MILLI = 6  # left edges this close to each other were meant to be one


RULES = ("breaks", "fit", "contrast", "type size", "legibility", "overlap", "alignment")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing wrong with a plan: which of the `RULES` it breaks, where, and how far."""

    rule: str
    path: str
    message: str


def copy_fidelity(prompt: str, blueprint: Blueprint) -> float:
    """Share of the prompt's quoted strings that stand on the page verbatim, in the order asked; 1
    when none are."""
    wanted = quoted(prompt)
    found = 0
    for text in blueprint.texts:
        if found < len(wanted) and fold(text.string) == wanted[found]:
            found += 1
    return found / len(wanted) if wanted else 1.0


def demerits(prompt: str, blueprint: Blueprint, *, legible_px: float | None = None) -> float:
    """By how much a plan is worse than a perfect one for its prompt: a point for each finding and
    each quoted string that is missing, a quarter for each text that a prompt which quotes its texts
    did not ask for, and half of what the lines of a broken text leave bare of its width.
    `legible_px` is as for `findings`."""
    wanted = quoted(prompt)
    missing = (1 - copy_fidelity(prompt, blueprint)) * len(wanted)
    unasked = max(len(list(blueprint.texts)) - len(wanted), 0) if wanted else 0
    ragged = sum(raggedness(text.lines) for text in blueprint.texts)
    num_findings = len(findings(blueprint, legible_px=legible_px))
    return num_findings + missing + unasked / 4 + ragged / 2


def findings(blueprint: Blueprint, *, legible_px: float | None = None) -> list[Finding]:
    """What breaks the rules of `fitting.py`, in element order: breaks that do not come out even, a
    squeezed width, a pitch under its type, faint ink, small type, words that lie on each other or
    under something; and left edges that are nearly but not quite one. `legible_px` is the least
    type that a tokenizer or decoder was measured to print legibly (`evals/legibility.py`): smaller
    type is a finding too."""
    out: list[Finding] = []
    for i, element in enumerate(blueprint.elements):
        path = f"elements[{i}]"
        if isinstance(element, Text):
            out += _of_text(blueprint, i, element, path)
            out += _legibility(blueprint, element, path, legible_px)
        if isinstance(element, Text) or covers(element):
            for j, other in enumerate(blueprint.elements[:i]):
                if isinstance(other, Text) and overlap(element.box, other.box):
                    out.append(Finding("overlap", f"{path}.box", f"lies on elements[{j}]"))
                if _nearly_aligned(element, other):
                    left = f"{path}.box.left"
                    out.append(Finding("alignment", left, f"is nearly that of elements[{j}]"))
    return out


def _nearly_aligned(element: Element, other: Element) -> bool:
    pair = (element, other)
    if not all(isinstance(e, Text) and e.align == "left" for e in pair):
        return False
    return 0 < abs(element.box.left - other.box.left) <= NEARLY_MILLI


def _legibility(
    blueprint: Blueprint, text: Text, path: str, legible_px: float | None
) -> list[Finding]:
    """Type that these rules would let pass and that has been measured to be too small."""
    size = size_px(text, blueprint.height_px)
    if legible_px is None or not MIN_TYPE_PX <= size < legible_px:
        return []
    told = f"{size} px under the measured {legible_px:g}"
    return [Finding("legibility", f"{path}.size_milli", told)]


def _of_text(blueprint: Blueprint, index: int, text: Text, path: str) -> list[Finding]:
    out = []
    if problem := fault(text.lines):
        out.append(Finding("breaks", f"{path}.lines", problem))
    size = size_px(text, blueprint.height_px)
    _, _, width, height = text.box.pixels(blueprint.width_px, blueprint.height_px)
    need = SQUEEZED * widest_px(text.lines, text.font, text.weight, size)
    if need > width + 1:  # a pixel for rounding
        out.append(Finding("fit", f"{path}.box.width", f"{width:.0f} px, {need:.0f} px needed"))
    need = PITCHES[0] * size * len(text.lines)
    if need > height + 1:
        out.append(Finding("fit", f"{path}.box.height", f"{height:.0f} px, {need:.0f} px needed"))
    below, num_lines = blueprint.elements[:index], len(text.lines)
    under = grounds(blueprint.background, below, text.box, num_lines=num_lines)
    ratio = min((contrast(text.colour, colour) for colour in under), default=MIN_CONTRAST)
    if ratio < MIN_CONTRAST:
        out.append(Finding("contrast", f"{path}.colour", f"{ratio:.1f} under {MIN_CONTRAST}"))
    if size < MIN_TYPE_PX:
        out.append(Finding("type size", f"{path}.size_milli", f"{size} px under {MIN_TYPE_PX}"))
    return out
