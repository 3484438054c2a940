"""Which read lines are an element's, and where on the picture it came out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from rapidfuzz import fuzz

from blueprint.schema import Text
from evals.metrics.words import normalise
from evals.readers.lines import ReadLine, Rect, overlap, same_row
from evals.scoring import Case, Reading

ALIKE = 60.0  # percent of characters that agree, from which on a line may be an element's


@dataclasses.dataclass(frozen=True)
class Wanted:
    """An element as it was asked for: its words, its place in pixels of the picture that was read,
    and all else that a blueprint says of it."""

    string: str
    box_px: Rect
    text: Text | None = None


def wanted_elements(case: Case, reading: Reading) -> list[Wanted]:
    """The texts of the case's blueprint, or else its targets where quads say where they stand."""
    width, height = reading.size_px
    if case.blueprint is not None:
        texts = case.blueprint.texts
        return [Wanted(t.string, t.box.pixels(width, height), t) for t in texts]
    elements = []
    for target, quad in zip(case.targets, case.quads, strict=bool(case.quads)):
        xs, ys = [x * width for x, _ in quad], [y * height for _, y in quad]
        box = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
        elements.append(Wanted(target, box))
    return elements


@functools.lru_cache(maxsize=1 << 15)
def _folded(string: str) -> str:
    return normalise(string).casefold()


def likeness(line: str, element: str) -> float:
    """Percent of characters that agree (rapidfuzz's ratio), of the best part of the element when
    the line is the shorter, or 0 under `ALIKE`; case does not matter."""
    line, element = _folded(line), _folded(element)
    alike = fuzz.partial_ratio if len(line) < len(element) else fuzz.ratio
    return alike(line, element, score_cutoff=ALIKE)


def _apart(a: Rect, b: Rect) -> float:
    middles = ((x + width / 2, y + height / 2) for x, y, width, height in (a, b))
    (ax, ay), (bx, by) = middles
    return (ax - bx) ** 2 + (ay - by) ** 2


def matched_lines(elements: Sequence[Wanted], lines: Sequence[ReadLine]) -> list[list[ReadLine]]:
    """Each element's read lines: a line belongs to the element it is most alike, if to any by
    `ALIKE`, and of several that it is equally alike to the nearest."""
    matched: list[list[ReadLine]] = [[] for _ in elements]
    for line in lines:
        alike = [likeness(line.string, element.string) for element in elements]
        most = max(alike, default=0.0)
        if most and normalise(line.string):
            best = [i for i, percent in enumerate(alike) if percent == most]
            matched[min(best, key=lambda i: _apart(line.box_px, elements[i].box_px))].append(line)
    return matched


def union(boxes: Sequence[Rect]) -> Rect:
    """The smallest rectangle around others."""
    left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
    right, foot = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    return left, top, right - left, foot - top


def intersection_over_union(a: Rect, b: Rect) -> float:
    """Shared area over joint area; 0 for two without any."""
    shared = overlap(a, b)
    joint = a[2] * a[3] + b[2] * b[3] - shared
    return shared / joint if joint > 0 else 0.0


def num_rows(lines: Sequence[ReadLine]) -> int:
    """Rows that lines stand in: a line read in pieces is one."""
    rows: list[ReadLine] = []
    for line in sorted(lines, key=lambda line: line.box_px[1]):
        if not any(same_row(line, row) for row in rows):
            rows.append(line)
    return len(rows)
