"""What the decoder is told about a page: arrays made from the blueprint alone, in the code grid's
coordinates.

- *Regions*: for each code position, the topmost elements whose boxes hold it: what they are, their
style and where their edges lie from here.
- *Characters*: every letter with its place, the middle of its stretch of the line (y, x in codes,
counted from 1).
- *Locks* (a switch): which text each letter belongs to and where that text's box lies.
- *Glyphs* (a switch): every line set in the canonical face of its font class, whatever typeface
the page has, stretched to its box. `ink` cuts it into the code grid with a margin; `encoded` adds
the codes that our own tokenizer gives the lines on their flat grounds, from which the decoder may
copy; `off` shows nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np

from blueprint.fitting import covers
from blueprint.schema import (
    FONT_CLASSES,
    PAINTS,
    SHAPE_KINDS,
    Blueprint,
    Element,
    Picture,
    Shape,
    Text,
)
from blueprint.typeset import CANONICAL_FACES, coverage, lines, size_px

KINDS = ("none", "text", "picture", *SHAPE_KINDS)
_STYLE = len(FONT_CLASSES) + 2  # one-hot font class, bold, outline
REGION_FEATURES = len(KINDS) + _STYLE + 3 + 4 + 6 + 1  # kind, style, colour, edges, place, size
CHARACTER_FEATURES = len(FONT_CLASSES) + 1 + 3 + 1  # font class, bold, colour, type size
CAPTION_FEATURES = 32  # hashed letter pairs of a picture's caption
CONDITIONS = ("regions", "glyphs", "glyph_codes", "letters", "letter_places", "letter_styles")
LOCKS = ("letter_texts", "letter_boxes")  # beside them if regions lock
_PICTURE_GROUND = "#888"
_EDGE_REACH = 2.0  # edges further than this many codes away are all alike


@dataclasses.dataclass(frozen=True)
class ConditioningConfig:
    """`max_characters` is a ceiling; a page beyond it is an error, never cut.

    `lock_regions` lets a code look only at letters whose box holds it, and a letter only at its
    own text and the codes in its box (see `decoder.sight`).
    """

    downsampling: int = 8
    max_characters: int = 64
    slots: int = 3
    glyphs: str = "encoded"
    lock_regions: bool = False

    def __post_init__(self) -> None:
        if self.glyphs not in ("encoded", "ink", "off"):
            raise ValueError(f"glyphs {self.glyphs!r} is not encoded, ink or off")


def channels(colour: str) -> np.ndarray:
    """`#rgb` as three floats in [-1, 1]."""
    return np.array([int(digit, 16) / 7.5 - 1 for digit in colour[1:]], np.float32)


def _style(element: Element) -> np.ndarray:
    style = np.zeros(_STYLE, np.float32)
    if isinstance(element, Text):
        style[FONT_CLASSES.index(element.font)] = 1
        style[-2] = element.weight == "bold"
    if isinstance(element, Shape):
        style[-1] = element.paint == PAINTS[1]
    return style


def _kind(element: Element) -> str:
    return element.kind if isinstance(element, Shape) else type(element).__name__.lower()


def regions(blueprint: Blueprint, config: ConditioningConfig) -> np.ndarray:
    """float32 [y x R]: the page's colour, then `slots` elements from the top down."""
    f = config.downsampling
    rows, columns = blueprint.height_px // f, blueprint.width_px // f
    grid = np.zeros((rows, columns, config.slots, REGION_FEATURES), np.float32)
    filled = np.zeros((rows, columns), int)
    y, x = np.mgrid[:rows, :columns].astype(np.float32) + 0.5
    for element in reversed(blueprint.elements):
        left, top, width, height = (
            n / f for n in element.box.pixels(blueprint.width_px, blueprint.height_px)
        )
        edges = np.stack([x - left, y - top, left + width - x, top + height - y], axis=-1)
        held = (edges.min(axis=-1) > -0.5) & (filled < config.slots)
        vector = np.zeros(REGION_FEATURES, np.float32)
        vector[KINDS.index(_kind(element))] = 1
        at = len(KINDS)
        vector[at : at + _STYLE] = _style(element)
        at += _STYLE
        if not isinstance(element, Picture):
            vector[at : at + 3] = channels(element.colour)
        if isinstance(element, Text):
            vector[-1] = size_px(element, blueprint.height_px) / 32
        places = np.nonzero(held)
        block = np.repeat(vector[None], len(places[0]), axis=0)
        block[:, at + 3 : at + 7] = np.clip(edges[places], -1, _EDGE_REACH) / _EDGE_REACH
        u = 2 * (x[places] - left) / width - 1  # -1 to 1 across the box
        v = 2 * (y[places] - top) / height - 1
        block[:, at + 7 : at + 11] = np.stack([u, v, u * u, v * v], axis=-1).clip(-2, 2)
        block[:, at + 11 : at + 13] = 1 / max(width, 1), 1 / max(height, 1)
        grid[places[0], places[1], filled[places]] = block
        filled[places] += 1
    ground = np.broadcast_to(channels(blueprint.background), (rows, columns, 3))
    return np.concatenate([ground, grid.reshape(rows, columns, -1)], axis=-1)


def no_regions(num_features: int) -> np.ndarray:
    """float32 [R]: what `condition` says of no position of any page, `none` in every slot."""
    vector = np.zeros(num_features, np.float32)
    vector[3 : num_features - CAPTION_FEATURES : REGION_FEATURES] = 1
    return vector


def captions(blueprint: Blueprint, config: ConditioningConfig) -> np.ndarray:
    """float32 [y x 32]: letter pairs of the caption of the picture that holds a position, hashed;
    else zeros."""
    f = config.downsampling
    rows, columns = blueprint.height_px // f, blueprint.width_px // f
    grid = np.zeros((rows, columns, CAPTION_FEATURES), np.float32)
    for element in blueprint.elements:
        if isinstance(element, Picture):
            vector = np.zeros(CAPTION_FEATURES, np.float32)
            data = element.caption.lower().encode()
            for a, b in itertools.pairwise(data):
                vector[(a * 31 + b * 7) % CAPTION_FEATURES] = 1
            box = element.box.pixels(blueprint.width_px, blueprint.height_px)
            left, top, width, height = (round(n / f) for n in box)
            grid[top : top + max(height, 1), left : left + max(width, 1)] = vector
    return grid


def glyphs(blueprint: Blueprint, config: ConditioningConfig) -> np.ndarray:
    """uint8 [y x G]: canonical ink around each position, a window of twice its side; zeros when
    switched off."""
    f, margin = config.downsampling, config.downsampling // 2
    height, width = blueprint.height_px, blueprint.width_px
    ink = np.zeros((height, width), np.uint8)
    if config.glyphs != "off":
        for text in blueprint.texts:
            np.maximum(ink, coverage(text, (width, height)), out=ink)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(ink, margin), (2 * f, 2 * f))
    return windows[::f, ::f].reshape(height // f, width // f, -1).copy()


def canonical_page(blueprint: Blueprint) -> np.ndarray:
    """The blueprint taken literally: boxes of filled shapes flat in their colours, pictures grey,
    lines in canonical faces. uint8 [Y X 3].

    No figure, no outline, no icon and no photograph is on it, only their boxes. The pipeline
    encodes it by the tokenizer for `glyphs="encoded"`.
    """
    width, height = size = blueprint.width_px, blueprint.height_px
    page = np.empty((height, width, 3), np.float32)
    page[:] = channels(blueprint.background)
    for element in blueprint.elements:
        left, top, wide, high = (round(n) for n in element.box.pixels(*size))
        if isinstance(element, Text):
            share = coverage(element, size)[..., None] / 255
            page = page * (1 - share) + channels(element.colour) * share
        elif covers(element):
            colour = element.colour if isinstance(element, Shape) else _PICTURE_GROUND
            page[top : top + max(high, 1), left : left + max(wide, 1)] = channels(colour)
    return np.round((page + 1) * 127.5).astype(np.uint8)


def characters(blueprint: Blueprint, config: ConditioningConfig) -> dict[str, np.ndarray]:
    """Letters (bytes plus 1, 0 for none) int32 [S], places float32 [S 2], styles float32 [S K],
    texts (which of the page's, from 1, 0 for none) int32 [S], and the texts' boxes float32 [S 4].

    A box is (left, top, right, bottom) in codes, grown by half a code on every side: it holds the
    codes whose middles lie inside, which are those whose regions know of it.

    Raises `ValueError` when the page has more than `max_characters`.
    """
    f, most = config.downsampling, config.max_characters
    letters, places = np.zeros(most, np.int32), np.zeros((most, 2), np.float32)
    styles = np.zeros((most, CHARACTER_FEATURES), np.float32)
    owners, boxes = np.zeros(most, np.int32), np.zeros((most, 4), np.float32)
    count = 0
    for owner, text in enumerate(blueprint.texts, start=1):
        left, top, width, height = (
            n / f for n in text.box.pixels(blueprint.width_px, blueprint.height_px)
        )
        size = size_px(text, blueprint.height_px)
        font = CANONICAL_FACES[text.font].font(text.weight, size)
        style = np.concatenate(
            [_style(text)[: len(FONT_CLASSES) + 1], channels(text.colour), [size / 32]]
        )
        for line in lines(text, (blueprint.width_px, blueprint.height_px), stretch=True):
            ends = [font.getlength(line.string[:i]) for i in range(len(line.string) + 1)]
            for i, character in enumerate(line.string):
                middle = line.left + line.scale * (ends[i] + ends[i + 1]) / 2
                for byte in character.encode() if character != " " else b"":
                    if count == most:
                        raise ValueError(
                            f"the page has more than {most} characters: raise "
                            "config.conditioning.max_characters, or put less text on the page"
                        )
                    letters[count] = byte + 1
                    places[count] = 1 + line.middle / f, 1 + middle / f
                    styles[count] = style
                    owners[count] = owner
                    boxes[count] = left - 0.5, top - 0.5, left + width + 0.5, top + height + 0.5
                    count += 1
    return {
        "letters": letters, "letter_places": places, "letter_styles": styles,
        "letter_texts": owners, "letter_boxes": boxes,
    }  # fmt: skip


def condition(blueprint: Blueprint, config: ConditioningConfig) -> Mapping[str, np.ndarray]:
    """Everything above under the names the model's batch has, `LOCKS` only if regions lock."""
    placed = characters(blueprint, config)
    if not config.lock_regions:
        placed = {name: array for name, array in placed.items() if name not in LOCKS}
    return {
        "regions": np.concatenate(
            [regions(blueprint, config), captions(blueprint, config)], axis=-1
        ),
        "glyphs": glyphs(blueprint, config),
        **placed,
    }
