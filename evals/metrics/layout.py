"""Whether an element that was read stands where the blueprint or the benchmark has it, in its
number of lines and in its colour.

All scores but the first are of the elements that were found, however misspelt, so that they say
nothing of spelling: read them beside `elements_found` and beside the typeset ceiling.

There is no score of the font's class. On 256 px pages of ours, the class whose canonical face
correlates best with the ink in the box was the right one for 78 % of the elements, but for 16 % of
one family (Fredoka One), where always saying sans is right for 54 %. With all nine faces of
`train/data/posters/fonts.py` it was 92 %, and 61 % for families left out; blurred by 0.8 px, 65 and
39 %. That tells faces we know from each other, not classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from skimage.color import deltaE_cie76, deltaE_ciede2000, rgb2lab
from skimage.filters import threshold_otsu

from evals.metrics.placing import (
    Wanted,
    intersection_over_union,
    matched_lines,
    num_rows,
    union,
    wanted_elements,
)
from evals.metrics.remembering import remember_last
from evals.readers.lines import ReadLine, Rect
from evals.scoring import Case, Metric, Reading, share

SAME_COLOUR = 10.0
"""CIEDE2000 up to which two inks are one. A step of one channel of `#rgb` is 3.8 in the median and
7.2 or less nine times of ten, so a neighbouring colour passes; on pages of ours of 128 to 512 px at
least 99 % of inks measured so near the blueprint's, and 5 to 8 % of them to some other element's
different colour. Strokes of about a pixel that were blurred fail: their colour is nowhere."""


@remember_last
def _matches(case: Case, reading: Reading) -> list[tuple[Wanted, list[ReadLine]]]:
    elements = wanted_elements(case, reading)
    matched = matched_lines(elements, reading.lines)
    return [(e, lines) for e, lines in zip(elements, matched, strict=True) if lines]


def elements_found(case: Case, reading: Reading) -> tuple[float, float]:
    """(elements that some read line is alike to, elements)."""
    return len(_matches(case, reading)), len(wanted_elements(case, reading))


def box_overlaps(case: Case, reading: Reading) -> tuple[float, float]:
    """(summed intersection over union of each found element's box and the union of its read lines'
    boxes, found elements)."""
    overlaps = [
        intersection_over_union(element.box_px, union([line.box_px for line in lines]))
        for element, lines in _matches(case, reading)
    ]
    return sum(overlaps), len(overlaps)


def line_counts(case: Case, reading: Reading) -> tuple[float, float]:
    """(found elements read in as many rows as their blueprint has lines, found elements)."""
    texts = [(e.text, lines) for e, lines in _matches(case, reading) if e.text]
    return sum(num_rows(lines) == len(text.lines) for text, lines in texts), len(texts)


def ink_of(pixels: UInt8[np.ndarray, "P 3"]) -> Float[np.ndarray, 3]:
    """The colour of letters in a box of theirs, in CIE Lab.

    The ground is the median pixel; Otsu's threshold on the distance from it (CIE76) separates the
    ink, of which the farthest quarter is taken: the rest is the letters' soft edge.
    """
    packed = pixels @ np.array([1 << 16, 1 << 8, 1])  # many pixels have few shades
    _, first, counts = np.unique(packed, return_index=True, return_counts=True)
    lab = rgb2lab(pixels[None, first])[0]
    apart = deltaE_cie76(lab, [_quantile(channel, counts, 0.5) for channel in lab.T])
    inked = apart >= 0
    if apart.max() > apart.min():
        heights, edges = np.histogram(apart, bins=256, weights=counts)
        inked = apart > threshold_otsu(hist=(heights, (edges[:-1] + edges[1:]) / 2))
    inked &= apart >= _quantile(apart[inked], counts[inked], 0.75)
    return np.array([_quantile(channel[inked], counts[inked], 0.5) for channel in lab.T])


def _quantile(
    values: Float[np.ndarray, " S"], counts: Int[np.ndarray, " S"], share: float
) -> np.floating:
    """numpy's quantile of values that occur so often."""
    order = np.argsort(values)
    until = np.cumsum(counts[order])
    place = share * (until[-1] - 1)
    low, high = values[order[np.searchsorted(until, [place // 1, np.ceil(place)], side="right")]]
    return low + (high - low) * (place % 1)


def _inside(picture: UInt8[np.ndarray, "Y X 3"], boxes: Sequence[Rect]) -> np.ndarray:
    parts = []
    for left, top, width, height in boxes:
        rows = slice(max(int(top), 0), max(int(np.ceil(top + height)), 0))
        columns = slice(max(int(left), 0), max(int(np.ceil(left + width)), 0))
        parts.append(picture[rows, columns].reshape(-1, 3))
    return np.concatenate(parts)


@remember_last  # all elements of a picture ask for it
def _looked(look: Callable[[], np.ndarray]) -> np.ndarray:
    return look()


@functools.lru_cache(maxsize=1 << 14)  # a constant page is every case's
def _ink(look: Callable[[], np.ndarray], boxes: tuple[Rect, ...]) -> np.ndarray | None:
    pixels = _inside(_looked(look), boxes)
    return ink_of(pixels) if len(pixels) else None


@functools.lru_cache
def lab_of(colour: str) -> Float[np.ndarray, 3]:
    """CIE Lab of `#rgb`."""
    return rgb2lab(np.array([[[int(digit, 16) / 15 for digit in colour[1:]]]]))[0, 0]


def colours(case: Case, reading: Reading) -> tuple[float, float]:
    """(found elements whose ink is the blueprint's by `SAME_COLOUR`, found elements); nothing
    without a blueprint or a picture to look at."""
    texts = [(e.text, lines) for e, lines in _matches(case, reading) if e.text]
    if not texts or reading.look is None:
        return 0.0, 0.0
    inks = [_ink(reading.look, tuple(line.box_px for line in lines)) for _, lines in texts]
    same = [
        ink is not None and deltaE_ciede2000(ink, lab_of(text.colour)) <= SAME_COLOUR
        for ink, (text, _) in zip(inks, texts, strict=True)
    ]
    return float(sum(same)), len(texts)


def _metric(
    name: str, measure: Callable[[Case, Reading], tuple[float, float]], said: str
) -> Metric:
    return Metric(name, measure, share, f"Letterpress: {said}")


LAYOUT: tuple[Metric, ...] = (
    _metric("elements_found", elements_found, "elements that a read line is alike to (60 %)"),
    _metric(
        "box_iou",
        box_overlaps,
        "mean over found elements of the intersection over union of their box and what was read; "
        "a box has room above and below its letters, so the ceiling is near 0.8",
    ),
    _metric("line_count", line_counts, "found elements in as many rows as they have lines"),
    _metric(
        "colour_agreement",
        colours,
        "found elements whose ink is within CIEDE2000 10 of the blueprint's colour",
    ),
)
