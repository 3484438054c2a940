"""What a careful printer would accept: type that fits its box, words that nothing covers, ink that
can be read. `check.py` finds what breaks these rules in a finished plan; `grammar.py` keeps a plan
in the making from breaking them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from blueprint.breaking import MEASURED_PX, Breaks, Spans, even
from blueprint.schema import Box, Element, Picture, Shape, Text
from blueprint.typeset import CANONICAL_FACES, INSET_PX
from blueprint.wishes import Wishes

MIN_CONTRAST = 4.5  # WCAG 2.2, success criterion 1.4.3
MIN_TYPE_PX = 8
SQUEEZED = 0.75  # a box narrower than this share of its widest line in the canonical face is wrong
WIDTHS = 0.9, 1.25  # what a plan in the making may choose
PITCHES = 1.1, 1.5  # a band by its type size
BOLDER = 0.9  # of the room is for lines as the plain face has them: others are wider
_SIDE = 1001  # 0 to 1000 thousandths
_SAMPLES = (0.1, 0.3, 0.5, 0.7, 0.9)  # where across a text its ground is looked at


def luminance(colour: str) -> float:
    """Relative luminance of `#rgb` (WCAG 2.2)."""
    channels = [int(c, 16) / 15 for c in colour[1:]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """WCAG contrast ratio of two colours, from 1 to 21."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def overlap(a: Box, b: Box) -> int:
    """Shared area of two boxes in square thousandths."""
    wide = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    high = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    return max(wide, 0) * max(high, 0)


def covers(element: Element) -> bool:
    """Whether an element hides what lies below it."""
    return isinstance(element, Picture) or (isinstance(element, Shape) and element.paint == "fill")


def ground_at(elements: Sequence[Element], x: int, y: int) -> Shape | Picture | None:
    """What covers a point of the page, None for the bare page."""
    found = None
    for element in elements:
        if covers(element) and overlap(Box(x, y, 1, 1), element.box):
            found = element
    return found  # type: ignore[return-value]  # a text covers nothing


def grounds(
    background: str, elements: Sequence[Element], box: Box, *, num_lines: int = 1
) -> set[str]:
    """The flat colours that the middles of a box's lines lie on, from their left end to their
    right."""
    colours = set()
    for i in range(num_lines):
        y = box.top + (2 * i + 1) * box.height // (2 * num_lines)
        for share in _SAMPLES:
            under = ground_at(elements, box.left + int(share * box.width), y)
            if not isinstance(under, Picture):
                colours.add(under.colour if under else background)
    return colours


def widest_px(lines: Sequence[str], font: str, weight: str, size_px: int) -> float:
    """How wide the canonical face sets the widest line, bare ends included."""
    face = CANONICAL_FACES[font].font(weight, size_px)
    return max(map(face.getlength, lines)) + 2 * INSET_PX


@dataclasses.dataclass(frozen=True)
class Extent:
    """The least and most (width, height) of a box, in thousandths from 1 to 1000."""

    least: tuple[int, int] = (1, 1)
    most: tuple[int, int] = (1000, 1000)


@functools.cache
def _all_luminances() -> np.ndarray:
    return np.array([luminance(f"#{n:03x}") for n in range(4096)])


class Anywhere:
    """The page as the schema has it: every box on the page, every size, every colour."""

    def frame(self, quote: str) -> Box | None:
        """Where the caller wants a quoted string, if he said so."""
        return None

    def breaks(self, string: str, frame: Box | None) -> Breaks:
        """Where a string's lines may end."""
        return Breaks(string)

    def sizes(
        self, lines: Sequence[str], font: str, weight: str, frame: Box | None = None
    ) -> np.ndarray:
        """Type sizes that may be set, bool [1001] over thousandths."""
        return np.arange(_SIDE) > 0

    def extent(self, lines: Sequence[str], font: str, weight: str, size_milli: int) -> Extent:
        """What a text's box may measure."""
        return Extent()

    def lefts(self, extent: Extent, *, covering: bool) -> np.ndarray:
        """Left edges that leave room, bool [1001]; `covering` says whether words count."""
        return np.arange(_SIDE) <= 1000 - extent.least[0]

    def tops(self, extent: Extent, left: int, *, covering: bool) -> np.ndarray:
        """Upper edges that leave room at this left edge, bool [1001]."""
        return np.arange(_SIDE) <= 1000 - extent.least[1]

    def widths(self, extent: Extent, left: int, top: int, *, covering: bool) -> np.ndarray:
        """Widths that the place has room for, bool [1001]."""
        return _between(extent.least[0], min(extent.most[0], 1000 - left))

    def heights(self, extent: Extent, box: Box, *, covering: bool) -> np.ndarray:
        """Heights that a box of 1 thousandth may grow to, bool [1001]."""
        return _between(extent.least[1], min(extent.most[1], 1000 - box.top))

    def paints(self) -> np.ndarray:
        """Colours of the page and of shapes, bool [16 16 16]."""
        return np.ones((16, 16, 16), bool)

    def inks(self, box: Box, num_lines: int) -> np.ndarray:
        """Colours that can be read there, bool [16 16 16]."""
        return np.ones((16, 16, 16), bool)

    def start(self, background: str) -> None:
        """The bare page."""

    def place(self, element: Element) -> None:
        """One more element lies on the page."""


def _between(least: int, most: int) -> np.ndarray:
    n = np.arange(_SIDE)
    return (n >= least) & (n <= max(least, most))


class Fitting(Anywhere):
    """A page that fills up by the rules of this file and the caller's wishes.

    A wish never gives way. A rule does when nothing satisfies it: the page is too full, or a ground
    is such that no ink reaches the contrast (then the best does). Type is `min_type_px` or more as
    long as it fits.
    """

    def __init__(
        self,
        page_px: tuple[int, int],
        *,
        min_type_px: int = MIN_TYPE_PX,
        wishes: Wishes = Wishes(),  # noqa: B008  # a frozen value
    ) -> None:
        self.page_px = page_px
        self.min_type_px = min_type_px
        self.wishes = wishes
        self._background = "#fff"
        self._elements: list[Element] = []

    def start(self, background: str) -> None:
        """The bare page."""
        self._background = background

    def place(self, element: Element) -> None:
        """One more element lies on the page."""
        self._elements.append(element)

    def frame(self, quote: str) -> Box | None:
        """Where the caller wants a quoted string, if he said so."""
        return self.wishes.boxes.get(quote)

    def _frame_px(self, frame: Box | None) -> tuple[float, float]:
        return self.page_px if frame is None else frame.pixels(*self.page_px)[2:]

    def breaks(self, string: str, frame: Box | None) -> Breaks:
        """Even breaks into each number of lines that fits its frame, or fits the page and has a
        free place on it, at `min_type_px`; if none does, at `MIN_TYPE_PX`; if still none, into any
        number of lines."""
        spans = Spans.of(string)
        caps = {n: spans.most_px(n) for n in range(1, spans.num_words + 1)}
        caps = {n: most for n, most in caps.items() if most >= spans.least_px[n]}
        for size in dict.fromkeys((self.min_type_px, MIN_TYPE_PX)):
            wide = self._frame_px(frame)[0] - 2 * INSET_PX
            room = BOLDER * wide * MEASURED_PX / size
            narrow = {n: min(m, room) for n, m in caps.items() if spans.least_px[n] <= room}
            type_ = ("sans", "regular", size)
            fitting = {n: m for n, m in narrow.items() if self._fits(even(string, n), type_, frame)}
            if fitting:
                return Breaks(string, fitting)
        return Breaks(string, caps)

    def _milli(self, width_px: float, height_px: float) -> tuple[int, int]:
        """Pixels to thousandths, at least 1 and at most all."""
        sides = zip((width_px, height_px), self.page_px, strict=True)
        return tuple(min(max(int(np.ceil(n * 1000 / side)), 1), 1000) for n, side in sides)  # type: ignore[return-value]  # two of them

    def extent(self, lines: Sequence[str], font: str, weight: str, size_milli: int) -> Extent:
        """`WIDTHS` by the widest line, `PITCHES` by the type size."""
        size = max(1, round(size_milli * self.page_px[1] / 1000))
        wide, high = widest_px(lines, font, weight, size), size * len(lines)
        least = self._milli(WIDTHS[0] * wide, PITCHES[0] * high)
        most = self._milli(WIDTHS[1] * wide, PITCHES[1] * high)
        return Extent(least, most)

    def sizes(
        self, lines: Sequence[str], font: str, weight: str, frame: Box | None = None
    ) -> np.ndarray:
        """Sizes whose lines fit their frame, or fit the page and have a free place on it: down to
        `min_type_px`; if there are none, down to `MIN_TYPE_PX`; if still none, the least."""
        height_px = self.page_px[1]
        in_px = np.maximum(1, np.round(np.arange(_SIDE) * height_px / 1000)).astype(int)
        for least in (self.min_type_px, MIN_TYPE_PX, 1):
            low, high = least, height_px + 1  # sizes under `low` fit, those from `high` on do not
            while low < high:
                size = (low + high) // 2
                if self._fits(lines, (font, weight, size), frame):
                    low = size + 1
                else:
                    high = size
            if low > least:
                return (in_px >= least) & (in_px < low) & (np.arange(_SIDE) > 0)
        return (in_px == 1) & (np.arange(_SIDE) > 0)

    def _fits(self, lines: Sequence[str], type_: tuple[str, str, int], frame: Box | None) -> bool:
        wide, size_px = widest_px(lines, *type_), type_[2]
        room = self._frame_px(frame)
        if wide > room[0] or size_px * PITCHES[0] * len(lines) > room[1]:
            return False
        if frame is not None:
            return True
        extent = self.extent(lines, *type_[:2], round(size_px * 1000 / self.page_px[1]))
        return bool(self._free(extent, covering=True).any())

    def _words(self, *, covering: bool) -> list[Box]:
        if not covering:
            return []
        return [*self.wishes.keep_free, *(e.box for e in self._elements if isinstance(e, Text))]

    def _free(self, extent: Extent, *, covering: bool) -> np.ndarray:
        """Where a least box touches no words, bool [left top]."""
        width, height = extent.least
        free = np.ones((_SIDE - width, _SIDE - height), bool)
        for box in self._words(covering=covering):
            x, y = max(box.left - width + 1, 0), max(box.top - height + 1, 0)
            free[x : box.left + box.width, y : box.top + box.height] = False
        return free

    def lefts(self, extent: Extent, *, covering: bool) -> np.ndarray:
        """Left edges with a free place somewhere below them; all if the page is full."""
        free = self._free(extent, covering=covering)
        allowed = np.zeros(_SIDE, bool)
        allowed[: len(free)] = free.any(axis=1) if free.any() else True
        return allowed

    def tops(self, extent: Extent, left: int, *, covering: bool) -> np.ndarray:
        """Upper edges of the free places there; all if there are none."""
        column = self._free(extent, covering=covering)[left]
        allowed = np.zeros(_SIDE, bool)
        allowed[: len(column)] = column if column.any() else True
        return allowed

    def widths(self, extent: Extent, left: int, top: int, *, covering: bool) -> np.ndarray:
        """Widths that stop short of the next words."""
        band = Box(left, top, 1000 - left, extent.least[1])
        rights = [b.left for b in self._words(covering=covering) if overlap(b, band)]
        room = min([1000, *rights]) - left
        return _between(extent.least[0], min(extent.most[0], room))

    def heights(self, extent: Extent, box: Box, *, covering: bool) -> np.ndarray:
        """Heights that stop short of the next words."""
        column = Box(box.left, box.top, box.width, 1000 - box.top)
        feet = [b.top for b in self._words(covering=covering) if overlap(b, column)]
        room = min([1000, *feet]) - box.top
        return _between(extent.least[1], min(extent.most[1], room))

    def inks(self, box: Box, num_lines: int) -> np.ndarray:
        """Colours with `MIN_CONTRAST` to every ground of the lines, or those that come nearest."""
        ink = _all_luminances()
        worst = np.full(4096, np.inf)
        for colour in grounds(self._background, self._elements, box, num_lines=num_lines):
            other = luminance(colour)
            ratio = (np.maximum(ink, other) + 0.05) / (np.minimum(ink, other) + 0.05)
            worst = np.minimum(worst, ratio)
        worst = np.where(self.paints().reshape(-1), worst, 0.0)
        return (worst >= min(MIN_CONTRAST, worst.max())).reshape(16, 16, 16)

    def paints(self) -> np.ndarray:
        """The palette, or all colours without one."""
        if not self.wishes.palette:
            return np.ones((16, 16, 16), bool)
        allowed = np.zeros(4096, bool)
        allowed[[int(colour[1:], 16) for colour in self.wishes.palette]] = True
        return allowed.reshape(16, 16, 16)
