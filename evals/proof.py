"""Proofreading: which element's words came out, from the lines a reader found."""

from __future__ import annotations

from collections.abc import Sequence

from blueprint.schema import Blueprint, Text
from evals.metrics import word_hits
from evals.readers import ReadLine

Rect = tuple[float, float, float, float]


def overlap(a: Rect, b: Rect) -> float:
    """Shared area of two (left, top, width, height)."""
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(high, 0.0)


def element_reads(blueprint: Blueprint, lines: Sequence[ReadLine]) -> list[list[str]]:
    """For each text, the words read where it stands: a line belongs to the text it overlaps
    most."""
    boxes = [t.box.pixels(blueprint.width_px, blueprint.height_px) for t in blueprint.texts]
    reads: list[list[str]] = [[] for _ in boxes]
    for line in lines:
        shares = [overlap(line.box_px, box) for box in boxes]
        if shares and max(shares) > 0:
            reads[shares.index(max(shares))] += line.string.split()
    return reads


def lost_words(text: Text, read: Sequence[str]) -> list[str]:
    """The words of a text that were not read exactly."""
    words = [word for line in text.lines for word in line.split()]
    return [word for word, hit in zip(words, word_hits(words, read), strict=True) if not hit]
