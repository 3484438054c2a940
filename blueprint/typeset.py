"""The one place that puts letters into boxes: equal bands, one baseline rule, any font.

The decoder's glyph conditioning sets every text in the canonical font; the pages set it in real
ones; both stand on the same baselines because both are set here.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import font_roboto
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from blueprint.schema import Text

BASELINE = 0.76  # of a band's height, from its top
PITCH = 1.25  # bands are this many type sizes high
_FOLDER = Path(font_roboto.__file__).parent / "files"
CANONICAL_FONTS = {"regular": _FOLDER / "Roboto-Regular.ttf", "bold": _FOLDER / "Roboto-Bold.ttf"}


@functools.lru_cache(maxsize=512)
def load_font(path: Path, size_px: int) -> ImageFont.FreeTypeFont:
    """A font at a size, with Pillow's basic layout, which is the same on every machine."""
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)


def size_px(text: Text, height_px: int) -> int:
    """The em square in whole pixels of a page of that height, at least 1."""
    return max(1, round(text.size_milli * height_px / 1000))


def measure(string: str, path: Path, size_px: int) -> float:
    """The advance width in pixels."""
    return load_font(path, size_px).getlength(string)


@dataclasses.dataclass(frozen=True)
class Band:
    """The stretch of page that one line of a text has to itself, in pixels."""

    string: str
    left: float
    top: float
    width: float
    height: float

    @property
    def baseline(self) -> int:
        """The pixel row on which the letters stand."""
        return round(self.top + BASELINE * self.height)


def bands(text: Text, width_px: int, height_px: int) -> list[Band]:
    """Equal bands of the text's box, one a line."""
    left, top, width, height = text.box.pixels(width_px, height_px)
    pitch = height / len(text.lines)
    return [Band(line, left, top + i * pitch, width, pitch) for i, line in enumerate(text.lines)]


def coverage(
    text: Text, width_px: int, height_px: int, *, font: Path | None = None, stretch: bool = False
) -> np.ndarray:
    """Ink of a text on its page, uint8 [Y X], 0 bare to 255 full; in the canonical font unless
    another is given.

    With `stretch` the lines are scaled sideways alike, so that the widest fills the box.
    """
    path = font or CANONICAL_FONTS[text.weight]
    size = size_px(text, height_px)
    face = load_font(path, size)
    page = np.zeros((height_px, width_px), np.uint8)
    lengths = [max(face.getlength(line), 1.0) for line in text.lines]
    for band, length in zip(bands(text, width_px, height_px), lengths, strict=True):
        ascent, descent = size, size // 2
        ink = Image.new("L", (round(length) + 2 * size, ascent + descent), 0)
        draw = ImageDraw.Draw(ink)
        draw.text((size // 2, ascent), band.string, font=face, fill=255, anchor="ls")
        scale = band.width / max(lengths) if stretch else 1.0
        if stretch:
            wide = max(round(ink.width * scale), 1)
            ink = ink.resize((wide, ink.height), Image.Resampling.BILINEAR)
        room = band.width - length * scale
        indent = {"left": 0.0, "center": room / 2, "right": room}[text.align]
        x = round(band.left + indent - (size // 2) * scale)
        _stamp(page, np.asarray(ink), x, band.baseline - ascent)
    return page


def _stamp(page: np.ndarray, ink: np.ndarray, x: int, y: int) -> None:
    """Lay ink on the page at (x, y), keeping the darker of the two; what lies off the page is
    lost."""
    rows = slice(max(y, 0), min(y + ink.shape[0], page.shape[0]))
    columns = slice(max(x, 0), min(x + ink.shape[1], page.shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        part = ink[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        np.maximum(page[rows, columns], part, out=page[rows, columns])
