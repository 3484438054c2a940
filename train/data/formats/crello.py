"""Crello's documents, one row of the data set as JSON on each line: layers become a blueprint.

A row has the columns of the data set, with class labels as names: `canvas_width`, `canvas_height`,
`title`, `keywords`, `format`, the page as `preview` (here the path of an image within the folder),
and one list each for `type`, `left`, `top`, `width`, `height`, `angle`, `color`, `text`,
`font_size`, `text_align`, `capitalize`, `font_bold`, `text_color` and `text_line`, of which only
the first five must be there. Release 5 has `TextElement`, lengths in pixels and angles in degrees;
releases before it have `textElement`, lengths in shares of the canvas and angles in radians.

Texts are Text elements of kind `body`, for the format does not say which is the title; backgrounds
the page's own colour; everything else is a Picture, clipped to the page. A text that stands at an
angle or reaches past the page would be a lie in a blueprint, and makes a bad record. There are no
captions: a row's own `caption` is taken if you added one, or else the prompt is its format and its
title (without one, its keywords) with every text quoted, and a row without any is a bad record.

Source: Yamaguchi, CanvasVAE (ICCV 2021), arXiv:2108.01249; the columns are those of
docs/crello-dataset.md of github.com/CyberAgentAILab/canvas-vae and of the data set
cyberagent/crello of the Hugging Face hub, the difference between its releases that which its
cr_renderer makes.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from blueprint.copying import fold
from blueprint.schema import ALIGNS, Element, Picture, Text
from train.data.entries import (
    BadRecord,
    Entry,
    Named,
    clipped,
    four_numbers,
    json_lines,
    loaded,
    number,
    placed,
    prompt_for,
    refuse,
    said,
    sourced,
)

_KEYS = ("type", "left", "top", "width", "height")
_PICTURES = {
    "imageelement": "a photograph", "svgelement": "a drawing", "maskelement": "a framed photograph",
    "humanelement": "a person",
}  # fmt: skip
_LEVEL_DEGREES = 2.0  # a text that leans by less is as good as level


def read(path: Path) -> Iterator[Named]:
    """The rows of a JSONL file; raises `FileNotFoundError` without it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}; set the source's path to Crello rows in JSONL"
        )
    for place, value in json_lines(path):
        if not isinstance(value, Mapping):
            yield place, functools.partial(refuse, "is no JSON object")
            continue
        name = f"{value.get('id', value.get('preview', 'a row'))} ({place})"
        yield name, functools.partial(_entry, value, path.parent)


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One element of a row: its columns by name, its box (left, top, width, height) in pixels."""

    columns: Mapping[str, Any]
    box: tuple[float, float, float, float]
    degrees: float
    name: str


def _entry(row: Mapping[str, Any], root: Path) -> Entry:
    if not isinstance(row.get("preview"), str):
        raise BadRecord("names no image (preview)")
    path = root / row["preview"]
    size_px = loaded(path, root).size
    canvas = _canvas(row)
    background, elements = "#fff", []
    for layer in _layers(row, canvas):
        if layer.name == "textelement":
            elements += _text(layer, canvas)
            continue
        left, top, width, height = _upright(layer)
        across = min(left + width, canvas[0]) - max(left, 0)
        down = min(top + height, canvas[1]) - max(top, 0)
        if layer.name == "coloredbackground":
            background = _plain(layer.columns.get("color")) or background
        elif across > 0 and down > 0:  # otherwise no part of it is on the page
            place = clipped((left, top, width, height), canvas)
            elements.append(Picture(place, _PICTURES.get(layer.name, "a picture")))
    caption = row["caption"] if "caption" in row else _prompt(row, elements)
    return Entry(path, size_px, said(caption), sourced(elements, caption), background)


def _canvas(row: Mapping[str, Any]) -> tuple[float, float]:
    try:
        canvas = float(row["canvas_width"]), float(row["canvas_height"])
    except (KeyError, TypeError, ValueError):
        canvas = 0.0, 0.0
    if min(canvas) <= 0:
        raise BadRecord("has no canvas_width and canvas_height in pixels")
    return canvas


def _layers(row: Mapping[str, Any], canvas: tuple[float, float]) -> Iterator[_Layer]:
    lists = {key: value for key, value in row.items() if isinstance(value, list)}
    count = len(lists.get("type", ()))
    if any(len(lists.get(key, ())) != count for key in _KEYS):
        raise BadRecord(f"has lists {', '.join(_KEYS)} of unlike lengths")
    for i in range(count):
        columns = {key: value[i] for key, value in lists.items() if len(value) == count}
        box, name = four_numbers([columns[key] for key in _KEYS[1:]]), columns["type"]
        if not isinstance(name, str) or not name:
            raise BadRecord("has a type that is no name (write class labels as their names)")
        if box is None or min(box[2:]) < 0:
            raise BadRecord("has a box that is not left, top, width and height")
        angle = number(columns.get("angle"), "an angle")
        if name[0].islower():  # a release before 5
            box = (box[0] * canvas[0], box[1] * canvas[1], box[2] * canvas[0], box[3] * canvas[1])
            angle = math.degrees(angle)
        yield _Layer(columns, box, (angle + 180) % 360 - 180, name.lower())


def _upright(layer: _Layer) -> tuple[float, float, float, float]:
    """The upright box around one that is turned about its middle."""
    left, top, width, height = layer.box
    turn = math.radians(layer.degrees)
    wide = abs(width * math.cos(turn)) + abs(height * math.sin(turn))
    high = abs(width * math.sin(turn)) + abs(height * math.cos(turn))
    return left + (width - wide) / 2, top + (height - high) / 2, wide, high


def _text(layer: _Layer, canvas: tuple[float, float]) -> list[Element]:
    columns = layer.columns
    lines = _lines(columns)
    if not lines:
        return []  # an empty text box prints nothing
    if abs(layer.degrees) > _LEVEL_DEGREES:
        raise BadRecord("has a text that stands at an angle")
    place = placed(list(layer.box), canvas)
    size_px = number(columns.get("font_size"), "a font_size") or layer.box[3] / len(lines) / 1.25
    bold = columns.get("font_bold")
    heavy = isinstance(bold, list) and 2 * sum(map(bool, bold)) > len(bold)
    align = columns.get("text_align")
    inks = columns.get("text_color")
    ink = collections.Counter(map(str, inks)).most_common(1)[0][0] if inks else None
    return [
        Text(
            "body",
            lines,
            place,
            weight="bold" if heavy else "regular",
            size_milli=min(max(round(1000 * size_px / canvas[1]), 1), 1000),
            colour=_plain(ink) or _plain(columns.get("color")) or "#000",
            align=align if align in ALIGNS else "left",
        )
    ]  # fmt: skip


def _lines(columns: Mapping[str, Any]) -> tuple[str, ...]:
    """The lines of a text: by the line number of each letter where there is one, or at breaks."""
    string, numbers = str(columns.get("text") or ""), columns.get("text_line")
    if columns.get("capitalize") in (True, "true"):
        string = string.upper()
    if isinstance(numbers, list) and len(numbers) == len(string):
        rows: dict[int, str] = collections.defaultdict(str)
        for number, letter in zip(numbers, string, strict=True):
            rows[int(number)] += letter
        parts: Sequence[str] = [rows[number] for number in sorted(rows)]
    else:
        parts = string.split("\n")
    return tuple(line for line in map(fold, parts) if line)


def _plain(colour: Any) -> str | None:
    """`#rgb` of [r, g, b], of a list of those, or of "rgb(...)" or "rgba(...)"."""
    if isinstance(colour, str):
        numbers: list[Any] = re.findall(r"[\d.]+", colour)[:3]
    else:
        numbers = colour if isinstance(colour, list) else []
        if numbers and isinstance(numbers[0], list | str):
            return _plain(numbers[0])
    if len(numbers) != 3:
        return None
    return "#" + "".join(f"{min(max(round(float(n) / 17), 0), 15):x}" for n in numbers)


def _prompt(row: Mapping[str, Any], elements: Sequence[Element]) -> str:
    words = [str(word) for word in row.get("keywords") or ()][:5]
    about = str(row.get("title") or "").strip() or ", ".join(words)
    if not about:
        raise BadRecord("has no caption, title or keywords")
    kind = row.get("format")
    return prompt_for(f"{kind}: {about}" if isinstance(kind, str) and kind else about, elements)
