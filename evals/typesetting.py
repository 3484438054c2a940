"""The targets of a case as we would set them: black on white, one plain face, the largest type that
fits. What is not read on such a page, no system can be blamed for.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
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
MARGIN = 0.05  # of the shorter side, bare around the page
MAX_TYPE_SHARE = 0.1  # of the shorter side: readers are made for lines, not for giant letters
MIN_TYPE_PX = 10  # under it readers fail
WARPED_SCALE = 2  # type in quads is set so many times as large, then warped
TALL = 1.5  # quads this many times as high as wide hold a line lying on its side
_ASCENT = 1.0  # of the type size, from a line's top to its baseline
_PIECE = re.compile(
    r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef][，。、：；！？）》」』”’…\uff09]*|"
    r"[^\s\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+[，。、：；！？）》」』”’…\uff09]*"
)


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


def font_of(string: str, font: Path | None = None) -> Path:
    """The first font with every glyph of a string: the given one, the plain canonical faces, then
    the Chinese one.

    Raises `TypesettingError` naming the characters that none has.
    """
    ours = [face.regular for face in CANONICAL_FACES.values()][:3]
    chinese = chinese_font()
    fonts = [*([font] if font else []), *ours, *([chinese] if chinese else [])]
    for path in fonts:
        if not lacking(path, string):
            return path
    least = min((lacking(path, string) for path in fonts), key=len)
    named = ", ".join(
        f"{c} (U+{ord(c):04X} {unicodedata.name(c, 'unnamed').lower()})" for c in least[:5]
    )
    remedy = "hand in a font that has them"
    if chinese is None and any("\u2e80" <= c <= "\uffef" for c in least):
        remedy = "pip install -e '.[zh]' brings a Chinese one, or hand in a font"
    raise TypesettingError(f"no font at hand has {len(least)} characters, {named}: {remedy}")


def pieces(string: str) -> list[tuple[str, bool]]:
    """What a line may not be broken within, and whether a blank comes before it: words, and single
    Chinese characters with the stops that follow them."""
    found = list(_PIECE.finditer(string))
    ends = [0, *(match.end() for match in found)]
    return [(m.group(), end < m.start()) for m, end in zip(found, ends, strict=False)]


def wrapped(string: str, path: Path, type_px: int, width_px: float) -> list[str] | None:
    """A string in lines of at most a width, each as full as can be; None when a piece is wider."""
    font, lines, line = load_font(path, type_px), [], ""
    for piece, blank in pieces(string):
        longer = f"{line} {piece}" if line and blank else line + piece
        if font.getlength(longer) <= width_px:
            line = longer
            continue
        if font.getlength(piece) > width_px:
            return None
        lines.append(line)
        line = piece
    return [*lines, line] if line else lines


def _paragraphs(
    strings: Sequence[str], fonts: Sequence[Path], type_px: int, room_px: tuple[float, float]
) -> list[list[str]] | None:
    """Every string in lines, or None when they do not fit the room (width, height)."""
    paragraphs = []
    for string, path in zip(strings, fonts, strict=True):
        lines = wrapped(string, path, type_px, room_px[0])
        if lines is None:
            return None
        paragraphs.append(lines)
    num_lines = sum(map(len, paragraphs))
    height = (num_lines * PITCH + (len(strings) - 1) * GAP) * type_px
    return paragraphs if height <= room_px[1] else None


def largest(fits: Callable[[int], object], least: int, most: int) -> int:
    """The largest type up to `most` that fits, found by halving; `least - 1` if none does."""
    low, high = least - 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def set_strings(
    strings: Sequence[str], *, size_px: tuple[int, int], font: Path | None = None
) -> UInt8[np.ndarray, "Y X 3"]:
    """A page (width, height) of paragraphs, black on white.

    Raises `TypesettingError` when a glyph is missing or not even small type fits.
    """
    page = Image.new("RGB", size_px, "white")
    strings = [s for s in (unicodedata.normalize("NFC", s) for s in strings) if pieces(s)]
    if not strings:
        return np.asarray(page)
    margin = round(MARGIN * min(size_px))
    room = (size_px[0] - 2 * margin, size_px[1] - 2 * margin)
    fonts = [font_of(string, font) for string in strings]
    most = max(MIN_TYPE_PX, round(MAX_TYPE_SHARE * min(size_px)))
    type_px = largest(lambda px: _paragraphs(strings, fonts, px, room), MIN_TYPE_PX, most)
    paragraphs = _paragraphs(strings, fonts, type_px, room)
    if type_px < MIN_TYPE_PX or paragraphs is None:
        raise TypesettingError(
            f"{sum(map(len, strings))} characters do not fit {size_px[0]} x {size_px[1]} px in "
            f"type of {MIN_TYPE_PX} px; set them on a larger page"
        )
    draw, top = ImageDraw.Draw(page), float(margin)
    for lines, path in zip(paragraphs, fonts, strict=True):
        for line in lines:
            at = (margin, round(top + _ASCENT * type_px))
            draw.text(at, line, "black", load_font(path, type_px), anchor="ls")
            top += PITCH * type_px
        top += GAP * type_px
    return np.asarray(page)


def _slip(string: str, size_px: tuple[int, int], path: Path) -> Image.Image:
    """A string alone on white, as large as it can be in one line, in the middle."""
    slip, (width, height) = Image.new("L", size_px, 255), size_px
    line = " ".join(string.split())

    def fits(px: int) -> bool:
        return load_font(path, px).getlength(line) <= 0.96 * width and px <= 0.8 * height

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
    targets inside their quads, else as paragraphs of a page of `size_px` (width, height). A case
    that begins with a picture has a page of its size, for its quads are shares of that.

    Raises `TypesettingError` with the case's name when its targets cannot be set.
    """
    own = page(case) if page else None
    if own is not None:
        return own
    if case.source:
        with Image.open(case.source) as source:
            size_px = source.size
    try:
        if case.quads:
            return set_in_quads(case.targets, case.quads, size_px=size_px, font=font)
        return set_strings(case.targets, size_px=size_px, font=font)
    except TypesettingError as error:
        raise TypesettingError(f"{case.name}: {error}") from None
