"""A blueprint and its typefaces to pixels: shapes smooth by supersampling, letters crisp on
whole-pixel baselines."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from blueprint.schema import Blueprint, Picture, Shape, Text
from blueprint.typeset import lines, size_px
from train.data.posters.fonts import Family

_OVERSAMPLING = 4
_PHOTOS = {
    "coffee": data.coffee, "cat": data.chelsea, "astronaut": data.astronaut,
    "rocket": data.rocket, "coins": data.coins,
    "motorcycle": lambda: data.stereo_motorcycle()[0],
}  # fmt: skip


def rgb(colour: str) -> tuple[int, int, int]:
    """`#rgb` as bytes."""
    return tuple(17 * int(digit, 16) for digit in colour[1:])  # type: ignore[return-value]  # three of them


@functools.cache
def _photo(caption: str) -> Image.Image:
    picture = Image.fromarray(_PHOTOS[caption]()).convert("RGB")
    picture.thumbnail((512, 512))
    return picture


def _picture(page: Image.Image, picture: Picture, rng: random.Random) -> None:
    left, top, width, height = (round(n) for n in picture.box.pixels(page.width, page.height))
    size = max(width, 1), max(height, 1)
    if picture.caption in _PHOTOS:
        photo = _photo(picture.caption)
        zoom = rng.uniform(0.7, 1.0) * min(photo.width / size[0], photo.height / size[1])
        w, h = size[0] * zoom, size[1] * zoom
        x, y = rng.uniform(0, photo.width - w), rng.uniform(0, photo.height - h)
        tile = photo.resize(size, Image.Resampling.LANCZOS, (x, y, x + w, y + h))
    else:
        tile = _product(picture.caption, size, rng)
    page.paste(tile, (left, top))


def _product(caption: str, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """A drawn product on a soft ground, from a few solid figures; an unknown caption gives a plain
    box."""
    k = _OVERSAMPLING
    ground = rng.choice(("#eee", "#fed", "#def", "#ddd"))
    tile = Image.new("RGB", (size[0] * k, size[1] * k), rgb(ground))
    draw = ImageDraw.Draw(tile)
    s = min(tile.size)
    x0, y0 = (tile.width - s) / 2, (tile.height - s) / 2
    colour = rgb(rng.choice(("#d33", "#15a", "#174", "#e63", "#63b", "#333")))
    dark = tuple(c // 2 for c in colour)
    at = lambda *box: [x0 + box[0] * s, y0 + box[1] * s, x0 + box[2] * s, y0 + box[3] * s]  # noqa: E731
    draw.ellipse(at(0.15, 0.85, 0.85, 0.95), fill=rgb("#bbb"))
    match caption:
        case "mug":
            draw.ellipse(at(0.58, 0.38, 0.85, 0.7), outline=colour, width=round(s * 0.06))
            draw.rounded_rectangle(at(0.25, 0.25, 0.68, 0.88), s * 0.06, fill=colour)
            draw.ellipse(at(0.25, 0.2, 0.68, 0.31), fill=dark)
        case "bottle":
            draw.rectangle(at(0.44, 0.1, 0.56, 0.4), fill=dark)
            draw.rounded_rectangle(at(0.36, 0.3, 0.64, 0.9), s * 0.1, fill=colour)
            draw.rectangle(at(0.36, 0.52, 0.64, 0.72), fill=rgb("#fff"))
        case "lamp":
            draw.rectangle(at(0.48, 0.4, 0.52, 0.88), fill=dark)
            shade = ((0.36, 0.12), (0.64, 0.12), (0.78, 0.45), (0.22, 0.45))
            draw.polygon([(x0 + a * s, y0 + b * s) for a, b in shade], fill=colour)
            draw.ellipse(at(0.34, 0.83, 0.66, 0.91), fill=dark)
        case "shoe":
            draw.pieslice(at(0.1, 0.4, 0.95, 1.3), 180, 360, fill=colour)
            draw.rectangle(at(0.1, 0.35, 0.45, 0.85), fill=colour)
            draw.rectangle(at(0.08, 0.8, 0.96, 0.88), fill=rgb("#fff"))
        case "bag":
            draw.arc(at(0.35, 0.1, 0.65, 0.55), 180, 360, fill=dark, width=round(s * 0.05))
            draw.rounded_rectangle(at(0.2, 0.32, 0.8, 0.9), s * 0.05, fill=colour)
        case "plant":
            for turn in (-0.5, -0.2, 0.2, 0.5):
                end = x0 + (0.5 + turn * 0.7) * s, y0 + (0.12 + abs(turn) * 0.3) * s
                draw.line(
                    [(x0 + 0.5 * s, y0 + 0.65 * s), end], fill=rgb("#174"), width=round(s * 0.07)
                )
            draw.rounded_rectangle(at(0.34, 0.6, 0.66, 0.9), s * 0.04, fill=rgb("#a53"))
        case _:
            draw.rounded_rectangle(at(0.25, 0.3, 0.75, 0.9), s * 0.03, fill=colour)
    return tile.resize(size, Image.Resampling.BOX)


_POLYGONS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "heart": ((0.5, 0.95), (0.02, 0.45), (0.05, 0.2), (0.25, 0.08), (0.5, 0.28), (0.75, 0.08),
              (0.95, 0.2), (0.98, 0.45)),
    "check": ((0.05, 0.55), (0.2, 0.4), (0.4, 0.6), (0.8, 0.15), (0.95, 0.3), (0.4, 0.88)),
    "arrow": ((0.05, 0.5), (0.5, 0.05), (0.5, 0.35), (0.95, 0.35), (0.95, 0.65), (0.5, 0.65),
              (0.5, 0.95)),
    "home": ((0.5, 0.05), (0.98, 0.5), (0.82, 0.5), (0.82, 0.95), (0.18, 0.95), (0.18, 0.5),
             (0.02, 0.5)),
    "cart": ((0.0, 0.1), (0.2, 0.1), (0.28, 0.25), (0.98, 0.25), (0.85, 0.65), (0.3, 0.65),
             (0.15, 0.2), (0.0, 0.2)),
    "bell": ((0.5, 0.05), (0.78, 0.3), (0.8, 0.65), (0.95, 0.8), (0.05, 0.8), (0.2, 0.65),
             (0.22, 0.3)),
}  # fmt: skip
_DISCS: Mapping[str, tuple[tuple[float, float, float, float], ...]] = {
    "cart": ((0.3, 0.72, 0.52, 0.94), (0.65, 0.72, 0.87, 0.94)),
    "bell": ((0.38, 0.78, 0.62, 1.0),),
    "user": ((0.3, 0.05, 0.7, 0.48), (0.1, 0.55, 0.9, 1.3)),
}


def _rays(count: int, inner: float) -> tuple[tuple[float, float], ...]:
    points = []
    for i in range(2 * count):
        radius = 0.5 if i % 2 == 0 else 0.5 * inner
        angle = math.pi * i / count - math.pi / 2
        points.append((0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)))
    return tuple(points)


def _shape(page: Image.Image, shape: Shape) -> None:
    """Draw into a mask at four times the size, then lay the colour through it."""
    k = _OVERSAMPLING
    left, top, width, height = shape.box.pixels(page.width, page.height)
    x, y, w, h = round(left), round(top), max(round(width), 1), max(round(height), 1)
    mask = Image.new("L", (w * k, h * k), 0)
    draw = ImageDraw.Draw(mask)
    corner = {"rounded": min(w, h) * 0.16, "pill": min(w, h) / 2}.get(shape.kind, 0.0) * k
    stroke = max(k, round(min(w, h) * k * 0.08)) if shape.paint == "outline" else 0
    ink: dict[str, Any] = (
        {"fill": 255} if not stroke else {"outline": 255, "width": min(stroke, 2 * k)}
    )
    whole = (0, 0, w * k - 1, h * k - 1)
    scaled = lambda points: [(a * w * k, b * h * k) for a, b in points]  # noqa: E731
    match shape.kind:
        case "ellipse":
            draw.ellipse(whole, **ink)
        case "burst" | "star":
            points = _rays(14, 0.82) if shape.kind == "burst" else _rays(5, 0.42)
            draw.polygon(scaled(points), fill=255)
        case "menu":
            for row in (0.15, 0.45, 0.75):
                draw.rectangle((0, row * h * k, w * k, (row + 0.14) * h * k), fill=255)
        case "search":
            draw.ellipse((0, 0, w * k * 0.7, h * k * 0.7), outline=255, width=max(k, w * k // 8))
            draw.line(scaled(((0.6, 0.6), (0.95, 0.95))), fill=255, width=max(k, w * k // 7))
        case kind if kind in _POLYGONS or kind in _DISCS:
            if kind in _POLYGONS:
                draw.polygon(scaled(_POLYGONS[kind]), fill=255)
            for a, b, c, d in _DISCS.get(kind, ()):
                draw.ellipse((a * w * k, b * h * k, c * w * k, d * h * k), fill=255)
        case _:
            draw.rounded_rectangle(whole, corner, **ink)
    page.paste(rgb(shape.colour), (x, y), mask.resize((w, h), Image.Resampling.BOX))


def _text(page: Image.Image, text: Text, family: Family) -> None:
    font = family.face.font(text.weight, size_px(text, page.height))
    draw = ImageDraw.Draw(page)
    for line in lines(text, page.size, family.face):
        at = (line.left, line.baseline)
        draw.text(at, line.string, font=font, fill=rgb(text.colour), anchor="ls")


def paint(blueprint: Blueprint, families: Mapping[str, Family], rng: random.Random) -> np.ndarray:
    """The page as uint8 [Y X 3]. `rng` crops the photographs and colours the drawn products."""
    size = blueprint.width_px, blueprint.height_px
    page = Image.new("RGB", size, rgb(blueprint.background))
    for element in blueprint.elements:
        match element:
            case Text():
                _text(page, element, families[element.font])
            case Shape():
                _shape(page, element)
            case Picture():
                _picture(page, element, rng)
    return np.asarray(page)
