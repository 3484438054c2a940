"""What a reader is: a picture in, the lines on it out, and a name that says who read."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from evals.readers.crops import Quad, rectified

Picture = UInt8[np.ndarray, "Y X 3"]
Rect = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class ReadLine:
    """A line as it was read; `box_px` is (left, top, width, height) on the picture as it was
    given."""

    string: str
    box_px: Rect
    confidence: float


class ReaderError(RuntimeError):
    """The engine cannot be used at all, so no picture may be scored as if it had been read."""


class PictureError(ValueError):
    """This one picture could not be read; the next may well be."""


class Reader(Protocol):
    """An OCR engine as it is set up.

    `name` is for people. `identity` has all that decides what is read: the engine and its version,
    the models' files by the first 16 digits of their SHA-256, the settings. Results are cached
    under it and reports record it, so two readers of one identity must read alike; the number of
    threads, which changes nothing, stays out.
    """

    name: str

    @property
    def identity(self) -> Mapping[str, str]:
        """Raises `ReaderError` when the engine is not there."""
        ...

    def read(self, picture: Picture) -> list[ReadLine]:
        """The lines in reading order. Raises `ReaderError` when the engine is not there and
        `PictureError` when it fails on this picture."""
        ...

    def words(self, picture: Picture) -> list[str]:
        """All words of a picture, in reading order."""
        return [word for line in self.read(picture) for word in line.string.split()]

    def read_crops(self, picture: Picture, quads: Sequence[Quad]) -> list[str]:
        """What stands in each quad, rectified and read as a picture of its own; "" if nothing."""
        crops = (rectified(picture, quad) for quad in quads)
        return ["" if crop is None else " ".join(self.words(crop)) for crop in crops]

    def on_one_thread(self) -> Reader:
        """The same reader for a process that shares the machine with others like it."""
        return self


def overlap(a: Rect, b: Rect) -> float:
    """Shared area of two (left, top, width, height)."""
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(high, 0.0)


def reading_order(lines: Sequence[ReadLine]) -> list[ReadLine]:
    """Rows from top to bottom, each from left to right.

    Lines share a row when every two of them share at least half of the lower one's height, so a
    tall title does not draw the two small lines at its side together, and a pixel of difference
    in their tops does not exchange two words.
    """
    rows: list[list[ReadLine]] = []
    for line in sorted(lines, key=lambda line: (line.box_px[1], line.box_px[0])):
        row = next((row for row in rows if all(same_row(line, other) for other in row)), None)
        if row is None:
            rows.append([line])
        else:
            row.append(line)
    return [line for row in rows for line in sorted(row, key=lambda line: line.box_px[0])]


def same_row(a: ReadLine, b: ReadLine) -> bool:
    """Whether two lines stand side by side: they share at least half of the lower one's height."""
    (_, top_a, _, height_a), (_, top_b, _, height_b) = a.box_px, b.box_px
    shared = min(top_a + height_a, top_b + height_b) - max(top_a, top_b)
    return shared > 0 and shared >= min(height_a, height_b) / 2


def enlarged(picture: Picture, side_px: int) -> tuple[np.ndarray, int]:
    """The picture enlarged by the whole factor that brings its shorter side nearest to `side_px`,
    and the factor; never made smaller."""
    factor = max(1, round(side_px / min(picture.shape[:2])))
    image = Image.fromarray(picture)
    size = (image.width * factor, image.height * factor)
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS)), factor


def joined(words: Sequence[str]) -> str:
    """Words of a line with blanks between them, but none between two ideographs or kana, which
    some engines report as a word each."""
    line = ""
    for word in filter(None, words):
        tight = line and _unspaced(line[-1]) and _unspaced(word[0])
        line += word if tight or not line else f" {word}"
    return line


def _unspaced(char: str) -> bool:
    wide = unicodedata.east_asian_width(char) in "WF"
    return wide and not unicodedata.name(char, "").startswith("HANGUL")
