"""The targets of a case as we would set them: black on white, one plain face, the largest type that
fits. What is not read on such a page, no system can be blamed for.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from skimage.transform import ProjectiveTransform

from blueprint.typeset import CANONICAL_FACES, load_font
from evals.scoring import Case, Quad

CHINESE_FONT_PACKAGE = "pylopdf_fonts_zh_cn"  # Noto Sans SC, SIL Open Font License 1.1
PITCH = 1.3  # baseline to baseline, in type sizes
GAP = 0.7  # more between paragraphs
CELL_GAP = 2.0  # between strings of a row: readers take what is that far apart for lines of its own
MARGIN = 0.05  # of the shorter side, bare around the page
MAX_TYPE_SHARE = 0.1  # of the shorter side: readers are made for lines, not for giant letters
MIN_TYPE_PX = 10  # under it readers fail
GOOD_TYPE_PX = 20  # under it they err: a page that would have smaller type grows
MAX_PAGE_PX = 2000  # of the longer side: rapidocr makes larger pictures smaller
WARPED_SCALE = 2  # type in quads is set so many times as large, then warped
TALL = 1.5  # quads this many times as high as wide hold a line lying on its side
_PIECE = re.compile(
    r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef][，。、：；！？）》」』”’…\uff09]*|"
    r"[^\s\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+[，。、：；！？）》」』”’…\uff09]*"
)


LEFT_OUT = 0.05  # of a page's characters or words may be for want of a glyph


class TypesettingError(ValueError):
    """Words that cannot be set: no face has a glyph of theirs, or they do not fit."""


@functools.cache
def chinese_font() -> Path | None:
    """The Chinese face of the extra `zh`, or None where it is not installed."""
    if importlib.util.find_spec(CHINESE_FONT_PACKAGE) is None:
        return None
    return Path(importlib.import_module(CHINESE_FONT_PACKAGE).sans_path())


def _drawn(path: Path, character: str) -> np.ndarray:
    picture = Image.new("L", (96, 96))
    ImageDraw.Draw(picture).text((24, 64), character, 255, load_font(path, 40), anchor="ls")
    return np.asarray(picture)


@functools.lru_cache(maxsize=1 << 14)
def _has_glyph(path: Path, character: str) -> bool:
    """Whether a font draws something else than its box for what it lacks (U+10FFFD is private and
    in none of ours)."""
    return not np.array_equal(_drawn(path, character), _drawn(path, "\U0010fffd"))


def lacking(path: Path, string: str) -> list[str]:
    """The characters of a string of which a font has no glyph, blanks aside."""
    return [c for c in dict.fromkeys(string) if not c.isspace() and not _has_glyph(path, c)]


def _nearest_font(string: str, font: Path | None) -> tuple[Path, list[str]]:
    """The first font of those at hand that lacks fewest characters of a string, and these."""
    ours = [face.regular for face in CANONICAL_FACES.values()][:3]
    chinese = chinese_font()
    fonts = [*([font] if font else []), *ours, *([chinese] if chinese else [])]
    return min(((path, lacking(path, string)) for path in fonts), key=lambda pair: len(pair[1]))


def _named(characters: Sequence[str]) -> str:
    named = [f"{c} (U+{ord(c):04X} {unicodedata.name(c, 'unnamed').lower()})" for c in characters]
    return ", ".join(named[:5]) + (", ..." if len(named) > 5 else "")


def font_of(string: str, font: Path | None = None) -> Path:
    """The first font with every glyph of a string: the given one, the plain canonical faces, then
    the Chinese one.

    Raises `TypesettingError` naming the characters that none has.
    """
    path, missing = _nearest_font(string, font)
    if not missing:
        return path
    remedy = "hand in a font that has them"
    if chinese_font() is None and any("\u2e80" <= c <= "\uffef" for c in missing):
        remedy = "pip install -e '.[zh]' brings a Chinese one, or hand in a font"
    raise TypesettingError(f"no font at hand has {_named(missing)}: {remedy}")


def settable(case: Case, font: Path | None = None) -> tuple[Case, str]:
    """A case without the few characters that no font at hand has, and what was left out; the case
    as it is where that is nothing, or more than `LEFT_OUT` of it, which is not to be set at all."""
    missing = {c for target in case.targets for c in _nearest_font(target, font)[1]}
    num_missing = sum(c in missing for target in case.targets for c in target)
    if not 0 < num_missing <= LEFT_OUT * sum(map(len, case.targets)):
        return case, ""
    kept = tuple("".join(c for c in target if c not in missing) for target in case.targets)
    said = f"{case.name}: set without {_named(sorted(missing))}, which no font at hand has"
    return dataclasses.replace(case, targets=kept), said


@functools.lru_cache(maxsize=1 << 12)
def pieces(string: str) -> tuple[tuple[str, bool], ...]:
    """What a line may not be broken within, and whether a blank comes before it: words, and single
    Chinese characters with the stops that follow them."""
    found = list(_PIECE.finditer(string))
    ends = [0, *(match.end() for match in found)]
    return tuple((m.group(), end < m.start()) for m, end in zip(found, ends, strict=False))


@functools.lru_cache(maxsize=1 << 16)
def length_px(string: str, path: Path, type_px: int) -> float:
    """How long a string is in a font at a size."""
    return load_font(path, type_px).getlength(string)


def wrapped(string: str, path: Path, type_px: int, width_px: float) -> list[str] | None:
    """A string in lines of at most a width, each as full as can be; None when a piece is wider.

    A line is as long as its pieces and blanks are, which kerning makes a pixel more or less.
    """
    space = length_px(" ", path, type_px)
    lines: list[str] = []
    left = 0.0
    for piece, blank in pieces(string):
        length = length_px(piece, path, type_px)
        if length > width_px:
            return None
        if lines and left + blank * space + length <= width_px:
            lines[-1] += " " * blank + piece
            left += blank * space + length
        else:
            lines.append(piece)
            left = length
    return lines


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of type that begins at (x, y) on its baseline."""

    x: float
    y: float
    string: str
    font: Path


Layout = Callable[[Sequence[tuple[str, Path]], int, tuple[float, float]], list[_Line] | None]


def paragraphs(
    strings: Sequence[tuple[str, Path]], type_px: int, room_px: tuple[float, float]
) -> list[_Line] | None:
    """Every string, each with its font, a paragraph of its own, or None when they do not fit the
    room (width, height)."""
    found, top = [], 0.0
    for string, path in strings:
        lines = wrapped(string, path, type_px, room_px[0])
        if lines is None:
            return None
        for line in lines:
            found.append(_Line(0.0, top + type_px, line, path))
            top += PITCH * type_px
        top += GAP * type_px
    return found if top - GAP * type_px <= room_px[1] else None


def run_in(
    strings: Sequence[tuple[str, Path]], type_px: int, room_px: tuple[float, float]
) -> list[_Line] | None:
    """As many strings in a row as there is room for, `CELL_GAP` apart, or None when they do not fit
    the room (width, height). What is wider than a row has rows of its own."""
    found, left, top = [], 0.0, 0.0
    for string, path in strings:
        lines = wrapped(string, path, type_px, room_px[0])
        if lines is None:
            return None
        length = length_px(lines[-1], path, type_px)
        if left and (len(lines) > 1 or left + length > room_px[0]):
            left, top = 0.0, top + PITCH * type_px
        for line in lines[:-1]:
            found.append(_Line(0.0, top + type_px, line, path))
            top += PITCH * type_px
        found.append(_Line(left, top + type_px, lines[-1], path))
        left += length + CELL_GAP * type_px
    return found if top + PITCH * type_px <= room_px[1] else None


def largest(fits: Callable[[int], object], least: int, most: int) -> int:
    """The largest type up to `most` that fits, found by halving; `least - 1` if none does."""
    low, high = least - 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _growing(size_px: tuple[int, int]) -> list[tuple[int, int]]:
    """A page's size, then each time half as much again, up to the largest that readers take as it
    is."""
    most = MAX_PAGE_PX / max(size_px)
    factors = [1.0]
    while factors[-1] < most:
        factors.append(min(1.5 * factors[-1], most))
    return [(round(f * size_px[0]), round(f * size_px[1])) for f in factors]


def _margin(size_px: tuple[int, int]) -> int:
    return round(MARGIN * min(size_px))


def _room(size_px: tuple[int, int]) -> tuple[float, float]:
    return size_px[0] - 2 * _margin(size_px), size_px[1] - 2 * _margin(size_px)


def _largest_type(
    strings: Sequence[tuple[str, Path]], layout: Layout, size_px: tuple[int, int]
) -> int:
    """The largest type of a layout that a page has room for; under `MIN_TYPE_PX` for none."""
    room = _room(size_px)
    most = max(MIN_TYPE_PX, round(MAX_TYPE_SHARE * min(size_px)))
    return largest(lambda px: layout(strings, px, room), MIN_TYPE_PX, most)


def set_strings(
    strings: Sequence[str],
    *,
    size_px: tuple[int, int],
    font: Path | None = None,
    layouts: Sequence[Layout] = (paragraphs, run_in),
) -> tuple[UInt8[np.ndarray, "Y X 3"], int]:
    """A page (width, height) of strings, black on white, and its type in pixels: the first layout
    and the smallest page, from `size_px` on, in which it is large enough to be read.

    Raises `TypesettingError` when a glyph is missing or not even small type fits.
    """
    strings = [s for s in (unicodedata.normalize("NFC", s) for s in strings) if pieces(s)]
    if not strings:
        return np.full((size_px[1], size_px[0], 3), 255, np.uint8), 0
    pairs = [(string, font_of(string, font)) for string in strings]
    best, size, layout = 0, size_px, layouts[0]
    for layout_, size_ in itertools.product(layouts, _growing(size_px)):
        type_px = _largest_type(pairs, layout_, size_)
        if type_px > best:
            best, size, layout = type_px, size_, layout_
        if best >= GOOD_TYPE_PX:
            break
    if best < MIN_TYPE_PX:
        raise TypesettingError(
            f"{len(strings)} strings of {sum(map(len, strings))} characters do not fit a page of "
            f"{MAX_PAGE_PX} px in type of {MIN_TYPE_PX} px"
        )
    page = Image.new("RGB", size, "white")
    draw, margin = ImageDraw.Draw(page), _margin(size)
    for line in layout(pairs, best, _room(size)) or ():
        at = (margin + line.x, round(margin + line.y))
        draw.text(at, line.string, "black", load_font(line.font, best), anchor="ls")
    return np.asarray(page), best


def _slip(string: str, size_px: tuple[int, int], path: Path) -> Image.Image:
    """A string alone on white, as large as it can be in one line, in the middle."""
    slip, (width, height) = Image.new("L", size_px, 255), size_px
    line = " ".join(string.split())

    def fits(px: int) -> bool:
        return length_px(line, path, px) <= 0.96 * width and px <= 0.8 * height

    type_px = largest(fits, 1, max(height, 1))
    if type_px:
        at = (width / 2, height / 2 + 0.36 * type_px)  # capitals stand in the middle
        ImageDraw.Draw(slip).text(at, line, 0, load_font(path, type_px), anchor="ms")
    return slip


def set_in_quads(
    strings: Sequence[str],
    quads: Sequence[Quad],
    *,
    size_px: tuple[int, int],
    font: Path | None = None,
) -> UInt8[np.ndarray, "Y X 3"]:
    """A page (width, height) with each string in its quad, set upright in a rectangle of the quad's
    sides and warped into it; in a tall quad a line reads from the top down.

    Raises `TypesettingError` when a glyph is missing or a quad has no area.
    """
    if len(strings) != len(quads):
        raise TypesettingError(f"{len(strings)} strings have {len(quads)} quads, not one each")
    page = Image.new("L", size_px, 255)
    for string, quad in zip(strings, quads, strict=True):
        corners = np.clip(np.asarray(quad, np.float64), 0, 1) * size_px
        path = font_of(string, font)
        sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
        width, height = max(sides[0], sides[2]), max(sides[1], sides[3])
        if height >= TALL * width and len(string) > 1:
            corners = np.roll(corners, -1, axis=0)  # the line begins at the top right corner
            width, height = height, width
        slip_px = (max(round(WARPED_SCALE * width), 1), max(round(WARPED_SCALE * height), 1))
        ends = np.array([(0, 0), (slip_px[0], 0), slip_px, (0, slip_px[1])], np.float64)
        there = ProjectiveTransform.from_estimate(corners, ends)
        if not there:
            raise TypesettingError(f"the quad of {string!r} has no area: {quad}")
        back = (there.params / there.params[2, 2]).ravel()[:8]  # page to slip, as Pillow wants it
        ink = _slip(string, slip_px, path).transform(
            size_px, Image.Transform.PERSPECTIVE, back.tolist(), Image.Resampling.BICUBIC,
            fillcolor=255,
        )  # fmt: skip
        page = Image.fromarray(np.minimum(np.asarray(page), np.asarray(ink)))
    return np.asarray(page.convert("RGB"))


def typeset(
    case: Case,
    *,
    size_px: tuple[int, int] = (1024, 1024),
    page: Callable[[Case], np.ndarray | None] | None = None,
    font: Path | None = None,
) -> UInt8[np.ndarray, "Y X 3"]:
    """The ceiling's picture of a case: what `page` gives for it, such as its own layout, else its
    targets inside their quads, else in paragraphs on a page of `size_px` (width, height) or larger.
    A case that begins with a picture has a page of its size, for its quads are shares of that.

    The few characters that no font at hand has are left out: `settable` says which. Raises
    `TypesettingError` with the case's name when its targets cannot be set.
    """
    own = page(case) if page else None
    if own is not None:
        return own
    case, _ = settable(case, font)
    if case.source:
        with Image.open(case.source) as source:
            size_px = source.size
    try:
        if case.quads:
            return set_in_quads(case.targets, case.quads, size_px=size_px, font=font)
        return set_strings(case.targets, size_px=size_px, font=font)[0]
    except TypesettingError as error:
        raise TypesettingError(f"{case.name}: {error}") from None
