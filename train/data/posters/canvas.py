"""A page in the making: a scene puts elements on it in pixels, with real fonts measured."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence

from blueprint.breaking import even, fault
from blueprint.schema import Box, Element, Picture, Shape, Text
from blueprint.typeset import INSET_PX, PITCH, Face
from train.data.posters import words
from train.data.posters.fonts import Family, families
from train.data.posters.palettes import Palette

LONG = (5, 6, 7, 8, 9)  # words of a long quote
MIN_BODY_PX = 4  # under it no face has letters


@dataclasses.dataclass(frozen=True)
class PageStyle:
    """What pages to make. `quoted="all"` has every string in the prompt; `mixed` leaves some to the
    planner.

    `long_quotes` is the share of a poster's main texts that are sentences of `LONG` words, in lines
    as even as can be; with 0 none is, and pages are what they were before there was the field.

    `dense` is the share of pages that are of much text (`dense.py`), every string of it quoted;
    with 0 none is. Such a page says `num_words` (least, most), as many again at every power of two,
    or what there is room for, and its running text is `body_px` (least, most) high, whatever
    `min_type_px` says; titles are higher.
    """

    width_px: int = 128
    height_px: int = 128
    split: str = "train"
    quoted: str = "mixed"
    min_type_px: int = 12
    long_quotes: float = 0.0
    dense: float = 0.0
    num_words: tuple[int, int] = (1, 200)
    body_px: tuple[int, int] = (12, 20)

    def __post_init__(self) -> None:
        for name in ("long_quotes", "dense"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is not a share from 0 to 1")
        for name, least in (("num_words", 1), ("body_px", MIN_BODY_PX)):
            low, high = getattr(self, name)
            if not least <= low <= high:
                raise ValueError(f"{name} {(low, high)} is not (least, most) from {least} up")
        if self.split not in ("train", "heldout"):
            raise ValueError(f"split {self.split!r} is not train or heldout")
        if self.quoted not in ("all", "mixed"):
            raise ValueError(f"quoted {self.quoted!r} is not all or mixed")
        if min(self.width_px, self.height_px) < 96 or (self.width_px % 8 or self.height_px % 8):
            raise ValueError(
                f"a page of {self.width_px} x {self.height_px} px is under 96 px "
                "or no multiple of 8"
            )


def choose_families(seed: int, split: str) -> dict[str, Family]:
    """The typeface that a page uses for each class: the same for its plan and for its paint."""
    rng = random.Random(f"fonts {seed}")
    return {c: rng.choice(families(c, split)) for c in ("sans", "serif", "rounded", "script")}


class Canvas:
    """Collects elements; lengths are pixels, and `u(n)` is n pixels of a 128 px page."""

    def __init__(self, seed: int, style: PageStyle, palettes: tuple[Palette, ...]) -> None:
        self.rng = random.Random(f"page {seed} {style.split}")
        self.style = style
        self.width, self.height = style.width_px, style.height_px
        self.scale = min(self.width, self.height) / 128
        self.roomy = self.scale >= 2
        self.palette = self.rng.choice(palettes)
        self.families = choose_families(seed, style.split)
        self.font = self.rng.choices(("sans", "serif", "rounded"), (4, 3, 3))[0]
        self.leaves_content = style.quoted == "mixed" and self.rng.random() < 0.35
        self.elements: list[Element] = []

    def u(self, n: float) -> int:
        """Pixels of this page for n pixels of a 128 px one."""
        return round(n * self.scale)

    def box(self, left: float, top: float, width: float, height: float) -> Box:
        """Whole pixels to thousandths, edge by edge, kept on the page."""
        x = min(max(round(left), 0), self.width - 1)
        y = min(max(round(top), 0), self.height - 1)
        right, foot = min(x + round(width), self.width), min(y + round(height), self.height)
        milli = lambda n, side: round(n * 1000 / side)  # noqa: E731
        x_milli, y_milli = milli(x, self.width), milli(y, self.height)
        return Box(
            x_milli, y_milli,
            max(milli(right, self.width) - x_milli, 1), max(milli(foot, self.height) - y_milli, 1),
        )  # fmt: skip

    def shape(
        self, kind: str, box: tuple[float, float, float, float], colour: str, paint: str = "fill"
    ) -> None:
        """Add a shape at (left, top, width, height) in pixels."""
        self.elements.append(Shape(kind, self.box(*box), colour, paint))  # type: ignore[arg-type]  # kinds are literals

    def picture(self, box: tuple[float, float, float, float], caption: str) -> None:
        """Add a picture at (left, top, width, height) in pixels."""
        self.elements.append(Picture(self.box(*box), caption))

    def phrase(self, num_words: int) -> str:
        """Words, about two in three of them invented."""
        rng = self.rng
        return " ".join(
            words.invented(rng, self.style.split) if rng.random() < 0.67 else words.real(rng)
            for _ in range(num_words)
        )

    def long_text(
        self, kind: str, anchor: tuple[float, float, float], look: Look, *, lowest: float
    ) -> float:
        """Set a sentence of `LONG` words from (left, top) into at most `width` pixels, not past
        `lowest`, in the largest type up to the look's; returns its foot, or 0 and sets nothing
        unless this is one of the style's `long_quotes` and five words have room."""
        share, rng, (_, top, room) = self.style.long_quotes, self.rng, anchor
        if not share or rng.random() >= share:
            return 0.0
        said = self.phrase(rng.choice(LONG)).split()
        first = max(self.u(look.size), self.style.min_type_px)
        while len(said) >= LONG[0]:
            for size in range(first, self.style.min_type_px - 1, -1):
                lines = self.broken(said, room, look, size)
                if lines and top + round(size * PITCH) * len(lines) <= lowest:
                    return self.set_lines(kind, lines, anchor, look, size)
            said.pop()
        return 0.0

    def broken(
        self, said: Sequence[str], room: float, look: Look, size: int
    ) -> tuple[str, ...] | None:
        """Words in the fewest lines that fit `room` pixels, as even as can be; None if one word is
        too wide or the breaks have a fault."""
        font = self.face(look).font(look.weight, size)
        string, width = " ".join(said), font.getlength
        lines = self._wrap(string, room - 2, lambda w, _: width(w), size)
        smooth = even(string, len(lines))
        lines = smooth if max(map(width, smooth)) <= room - 2 else tuple(lines)
        return lines if max(map(width, lines)) <= room - 2 and not fault(lines) else None

    def face(self, look: Look) -> Face:
        """The typeface that a look is set in."""
        return self.families[look.font or self.font].face

    def text(
        self,
        kind: str,
        string: str,
        anchor: tuple[float, float, float],
        look: Look,
    ) -> float:
        """Set a string from (left, top) into at most `width` pixels, wrapped at blanks; returns its
        foot.

        The type shrinks until every word fits, down to the style's least size; past that the
        longest word is cut.
        """
        room, face = anchor[2], self.face(look)
        size = max(self.u(look.size), self.style.min_type_px)

        def width(line: str, size: int) -> float:
            return face.font(look.weight, size).getlength(line)

        while size > self.style.min_type_px and self._too_wide(string, room - 2, width, size):
            size -= 1
        string = " ".join(self._cut(word, room - 2, width, size) for word in string.split())
        lines = self._wrap(string, room - 2, width, size)
        if not look.wraps and len(lines) > 1:
            lines = lines[:1]
        return self.set_lines(kind, tuple(lines), anchor, look, size)

    def set_lines(
        self,
        kind: str,
        lines: tuple[str, ...],
        anchor: tuple[float, float, float],
        look: Look,
        size: int,
    ) -> float:
        """Add a text of such lines and size; returns its foot."""
        left, top, room = anchor
        width = self.face(look).font(look.weight, size).getlength
        wide = math.ceil(max(map(width, lines))) + 2 * INSET_PX
        pitch = round(size * PITCH)
        indent = {"left": 0.0, "center": (room - wide) / 2, "right": room - wide}[look.align]
        box = self.box(left + indent, top, wide, pitch * len(lines))
        self.elements.append(
            Text(
                kind, lines, box, look.font or self.font, look.weight,  # type: ignore[arg-type]  # kinds are literals
                round(size * 1000 / self.height), look.colour, look.align,  # type: ignore[arg-type]
                "free" if look.free else "verbatim",
            )
        )  # fmt: skip
        return top + pitch * len(lines)

    @staticmethod
    def _too_wide(string: str, room: float, width, size: int) -> bool:  # a local function
        return any(width(word, size) > room for word in string.split())

    @staticmethod
    def _cut(word: str, room: float, width, size: int) -> str:
        while len(word) > 3 and width(word, size) > room:
            word = word[:-1]
        return word

    @staticmethod
    def _wrap(string: str, room: float, width, size: int) -> list[str]:
        lines: list[str] = []
        for word in string.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and width(longer, size) <= room:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines


@dataclasses.dataclass(frozen=True)
class Look:
    """How a text is set: its size in pixels of a 128 px page, its colour and the rest."""

    size: float
    colour: str
    weight: str = "regular"
    align: str = "left"
    font: str | None = None
    wraps: bool = False
    free: bool = False
