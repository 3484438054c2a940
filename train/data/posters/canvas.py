"""A page in the making: a scene puts elements on it in pixels, with real fonts measured."""

from __future__ import annotations

import dataclasses
import math
import random

from blueprint.schema import Box, Element, Picture, Shape, Text
from blueprint.typeset import INSET_PX, PITCH
from train.data.posters import words
from train.data.posters.fonts import Family, families
from train.data.posters.palettes import Palette


@dataclasses.dataclass(frozen=True)
class PageStyle:
    """What pages to make. `quoted="all"` has every string in the prompt; `mixed` leaves some to the
    planner."""

    width_px: int = 128
    height_px: int = 128
    split: str = "train"
    quoted: str = "mixed"
    min_type_px: int = 12

    def __post_init__(self) -> None:
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
        left, top, room = anchor
        font = look.font or self.font
        family = self.families[font]
        size = max(self.u(look.size), self.style.min_type_px)

        def width(line: str, size: int) -> float:
            return family.face.font(look.weight, size).getlength(line)

        while size > self.style.min_type_px and self._too_wide(string, room - 2, width, size):
            size -= 1
        string = " ".join(self._cut(word, room - 2, width, size) for word in string.split())
        lines = self._wrap(string, room - 2, width, size)
        if not look.wraps and len(lines) > 1:
            lines = lines[:1]
        wide = math.ceil(max(width(line, size) for line in lines)) + 2 * INSET_PX
        pitch = round(size * PITCH)
        indent = {"left": 0.0, "center": (room - wide) / 2, "right": room - wide}[look.align]
        box = self.box(left + indent, top, wide, pitch * len(lines))
        self.elements.append(
            Text(
                kind, tuple(lines), box, font, look.weight,  # type: ignore[arg-type]  # kinds are literals
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
