"""The one place that puts letters into boxes: equal bands, one baseline rule, any font.

The decoder's glyph conditioning sets every text in the canonical font of its class; the pages set
it in real ones; both stand at the same places because both are set here.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import font_amatic_sc
import font_manrope
import font_roboto
import font_source_serif_pro
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from blueprint.schema import Text

BASELINE = 0.76  # of a band's height, from its top
PITCH = 1.25  # bands are this many type sizes high
INSET_PX = 1  # bare at both ends of a line that fills its box
_ALIKE_PX = 1.5  # a line this close to its box's width is not stretched


@dataclasses.dataclass(frozen=True)
class Face:
    """A typeface in two weights; `scale` evens out its size beside others."""

    regular: Path
    bold: Path
    scale: float = 1.0

    @classmethod
    def of(cls, package: object, regular: str, bold: str, scale: float = 1.0) -> Face:
        """The face of two files of a font package."""
        folder = Path(str(package.__file__)).parent / "files"  # type: ignore[attr-defined]  # a module
        return cls(folder / regular, folder / bold, scale)

    def path(self, weight: str) -> Path:
        """The font file of a weight."""
        return self.bold if weight == "bold" else self.regular

    def font(self, weight: str, size_px: int) -> ImageFont.FreeTypeFont:
        """The face at the size that looks like `size_px`."""
        return load_font(self.path(weight), max(1, round(size_px * self.scale)))


@functools.lru_cache(maxsize=512)
def load_font(path: Path, size_px: int) -> ImageFont.FreeTypeFont:
    """A font at a size, with Pillow's basic layout, which is the same on every machine."""
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)


CANONICAL_FACES = {
    "sans": Face.of(font_roboto, "Roboto-Regular.ttf", "Roboto-Bold.ttf"),
    "serif": Face.of(
        font_source_serif_pro, "SourceSerifPro-Semibold.ttf", "SourceSerifPro-Bold.ttf", 1.04
    ),
    "rounded": Face.of(font_manrope, "Manrope-Medium.ttf", "Manrope-Bold.ttf"),
    "script": Face.of(font_amatic_sc, "AmaticSC-Bold.ttf", "AmaticSC-Bold.ttf", 1.2),
}
PLAIN_FONT = CANONICAL_FACES["sans"].regular  # for captions and the like


def size_px(text: Text, height_px: int) -> int:
    """The em square in whole pixels of a page of that height, at least 1."""
    return max(1, round(text.size_milli * height_px / 1000))


def bands(text: Text, page_px: tuple[int, int]) -> list[tuple[float, float, float, float]]:
    """(left, top, width, height) in pixels of the equal bands of the text's box, one a line."""
    left, top, width, height = text.box.pixels(*page_px)
    pitch = height / len(text.lines)
    return [(left, top + i * pitch, width, pitch) for i in range(len(text.lines))]


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a text where it stands: it starts at `left`, `scale` times as wide as its font
    has it."""

    string: str
    left: int
    baseline: int
    middle: float
    scale: float


def lines(
    text: Text, page_px: tuple[int, int], face: Face | None = None, *, stretch: bool = False
) -> list[Line]:
    """Equal bands of the text's box, one a line, aligned; without a face in the canonical one.

    With `stretch` the lines are scaled sideways alike, so that the widest fills the box.
    """
    left, top, width, height = text.box.pixels(*page_px)
    font = (face or CANONICAL_FACES[text.font]).font(text.weight, size_px(text, page_px[1]))
    lengths = [max(font.getlength(string), 1.0) for string in text.lines]
    pitch = height / len(text.lines)
    room = max(width - 2 * INSET_PX, 1.0)
    alike = not stretch or abs(room - max(lengths)) < _ALIKE_PX
    scale = 1.0 if alike else room / max(lengths)
    share = {"left": 0.0, "center": 0.5, "right": 1.0}[text.align]
    return [
        Line(
            string,
            round(left + INSET_PX + share * (room - length * scale)),
            round(top + i * pitch + BASELINE * pitch),
            top + (i + 0.5) * pitch,
            scale,
        )
        for i, (string, length) in enumerate(zip(text.lines, lengths, strict=True))
    ]


def coverage(text: Text, page_px: tuple[int, int]) -> np.ndarray:
    """Ink of a text on its page in the canonical face, stretched to its box: uint8 [Y X], 0 bare to
    255 full."""
    size = size_px(text, page_px[1])
    font = CANONICAL_FACES[text.font].font(text.weight, size)
    page = np.zeros((page_px[1], page_px[0]), np.uint8)
    for line in lines(text, page_px, stretch=True):
        ink = Image.new("L", (round(font.getlength(line.string)) + 2 * size, 2 * size), 0)
        draw = ImageDraw.Draw(ink)
        margin = size // 2
        draw.text((margin, round(1.3 * size)), line.string, font=font, fill=255, anchor="ls")
        if line.scale != 1:
            wide = max(round(ink.width * line.scale), 1)
            ink = ink.resize((wide, ink.height), Image.Resampling.BILINEAR)
        x = line.left - round(margin * line.scale)
        _stamp(page, np.asarray(ink), x, line.baseline - round(1.3 * size))
    return page


def _stamp(page: np.ndarray, ink: np.ndarray, x: int, y: int) -> None:
    """Lay ink on the page at (x, y), keeping the darker of the two; what lies off the page is
    lost."""
    rows = slice(max(y, 0), min(y + ink.shape[0], page.shape[0]))
    columns = slice(max(x, 0), min(x + ink.shape[1], page.shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        part = ink[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        np.maximum(page[rows, columns], part, out=page[rows, columns])
