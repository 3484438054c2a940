"""Is the plan a good one? Copy fidelity, fit, legibility and overlap, as numbers and findings."""

from __future__ import annotations

import dataclasses

from blueprint.copying import fold, quoted
from blueprint.schema import Blueprint, Box, Shape, Text
from blueprint.typeset import CANONICAL_FACES, size_px

MIN_CONTRAST = 4.5  # WCAG 2.2, success criterion 1.4.3
MIN_TYPE_PX = 8
FIT_SLACK = 1.3  # fonts differ in width from the canonical one by about this much


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing wrong with a plan: the rule it breaks, where, and how far."""

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


def luminance(colour: str) -> float:
    """Relative luminance of `#rgb` (WCAG 2.2)."""
    channels = [int(c, 16) / 15 for c in colour[1:]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """WCAG contrast ratio of two colours, from 1 to 21."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _overlap(a: Box, b: Box) -> int:
    wide = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    high = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    return max(wide, 0) * max(high, 0)


def ground(blueprint: Blueprint, index: int) -> Shape | None:
    """What an element's middle lies on: the last filled shape below it there, None for the bare
    page."""
    box = blueprint.elements[index].box
    x, y = box.left + box.width // 2, box.top + box.height // 2
    found = None
    for shape in blueprint.elements[:index]:
        if (
            isinstance(shape, Shape)
            and shape.paint == "fill"
            and _overlap(Box(x, y, 1, 1), shape.box)
        ):
            found = shape
    return found


def ground_colour(blueprint: Blueprint, index: int) -> str:
    """The colour an element's middle lies on."""
    shape = ground(blueprint, index)
    return shape.colour if shape else blueprint.background


def findings(blueprint: Blueprint) -> list[Finding]:
    """What a careful printer would send back, in element order."""
    out: list[Finding] = []
    for i, text in enumerate(blueprint.elements):
        if not isinstance(text, Text):
            continue
        path = f"elements[{i}]"
        size = size_px(text, blueprint.height_px)
        width = text.box.width * blueprint.width_px / 1000
        font = CANONICAL_FACES[text.font].font(text.weight, size)
        need = max(map(font.getlength, text.lines))
        if need > FIT_SLACK * width:
            out.append(Finding("fit", f"{path}.box.width", f"{width:.0f} px for {need:.0f} px"))
        pitch = text.box.height * blueprint.height_px / 1000 / len(text.lines)
        if size > FIT_SLACK * pitch:
            out.append(Finding("fit", f"{path}.box.height", f"{pitch:.0f} px for {size} px type"))
        ratio = contrast(text.colour, ground_colour(blueprint, i))
        if ratio < MIN_CONTRAST:
            out.append(Finding("contrast", f"{path}.colour", f"{ratio:.1f} under {MIN_CONTRAST}"))
        if size < MIN_TYPE_PX:
            out.append(Finding("type size", f"{path}.size_milli", f"{size} px under {MIN_TYPE_PX}"))
        for j, other in enumerate(blueprint.elements[:i]):
            if isinstance(other, Text) and _overlap(text.box, other.box):
                out.append(Finding("overlap", f"{path}.box", f"lies on elements[{j}]"))
    return out
