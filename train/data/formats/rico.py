"""RICO's screens with semantic annotations: a view hierarchy becomes a blueprint.

The folder has the archives as they unpack: `semantic_annotations/<id>.json`, `combined/<id>.jpg`
(the screenshot), and beside them `ui_details.csv` (`UI Number`, `App Package Name`) and
`app_details.csv` (`App Package Name`, `Play Store Name`, `Category`). A node of the hierarchy is
`{"bounds": [left, top, right, bottom], "componentLabel": "Text Button", "text": "OK", "iconClass":
"...", "children": [...]}`, in units of the root's bounds.

Texts, buttons and fields become Text elements, a button or a field on a rounded Shape; icons that
the schema knows a Shape, other icons, images, maps, videos and advertisements a Picture; bars,
cards and controls a Shape. The format has neither colours nor line breaks: colours are those that
prevail in the screenshot, and lines are broken where the canonical sans fills the box. What lies
wholly outside the screen or has no area is not visible and left out; a text that the screen's edge
cuts makes a bad record. There are no captions: the prompt is the screen's summary in
`screen_summaries.csv` (`screenId`, `summary`, of Screen2Words) if there is one, or else the
category and the name of its app, with every text quoted; a screen with neither is a bad record.

Sources: Deka et al., Rico (UIST 2017), doi:10.1145/3126594.3126651; Liu et al., Learning Design
Semantics for Mobile Apps (UIST 2018); Wang et al., Screen2Words (UIST 2021), arXiv:2108.03353; keys
as read by generate_rico.py of github.com/CyberAgentAILab/canvas-vae, which also has the legend.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from blueprint.copying import fold
from blueprint.schema import Box, Element, Picture, Shape, Text
from blueprint.typeset import CANONICAL_FACES, PITCH
from train.data.entries import (
    BadRecord,
    Entry,
    Named,
    clipped,
    four_numbers,
    loaded,
    placed,
    prevailing_colours,
    prompt_for,
    sourced,
)

_TEXTS = {"Text": "body", "Text Button": "button", "Input": "field", "Date Picker": "field"}
_PICTURES = {
    "Image": "an image", "Background Image": "a background image", "Map View": "a map",
    "Video": "a video", "Advertisement": "an advertisement", "Web View": "a web page",
}  # fmt: skip
_SHAPES = {
    "Toolbar": ("rectangle", "fill"), "Button Bar": ("rectangle", "fill"),
    "Bottom Navigation": ("rectangle", "fill"), "Drawer": ("rectangle", "fill"),
    "Multi-Tab": ("rectangle", "fill"), "Card": ("rounded", "fill"), "Modal": ("rounded", "fill"),
    "Checkbox": ("rectangle", "outline"), "Radio Button": ("ellipse", "outline"),
    "On/Off Switch": ("pill", "fill"), "Slider": ("line", "fill"),
}  # fmt: skip
_ICONS = {
    "menu": "menu", "search": "search", "favorite": "heart", "star": "star", "cart": "cart",
    "avatar": "user", "check": "check", "arrow_forward": "arrow", "notifications": "bell",
    "home": "home",
}  # fmt: skip
_MEASURED_PX = 100  # the type size at which a string's width is measured


def read(root: Path) -> Iterator[Named]:
    """The screens of a folder; raises `FileNotFoundError` without annotations."""
    root = Path(root)
    paths = sorted((root / "semantic_annotations").glob("*.json"))
    if not paths:
        raise FileNotFoundError(
            f"{root} has no semantic_annotations/*.json; unpack RICO's semantic annotations there"
        )
    about = _about(root)
    for path in paths:
        what = about.get(path.stem, "")
        yield f"screen {path.stem}", functools.partial(_entry, path, root, what)


def _table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _about(root: Path) -> dict[str, str]:
    """What each screen is, by its id: a summary, or the category and name of its app."""
    apps = {row["App Package Name"]: row for row in _table(root / "app_details.csv")}
    found = {}
    for row in _table(root / "ui_details.csv"):
        if app := apps.get(row["App Package Name"]):
            category, name = app.get("Category", "").strip(), app["Play Store Name"]
            found[row["UI Number"]] = f"a screen of the {category} app {name}".replace("  ", " ")
    for row in reversed(_table(root / "screen_summaries.csv")):  # the first of several stays
        found[row["screenId"]] = row["summary"]
    return found


def _entry(path: Path, root: Path, what: str) -> Entry:
    if not what.strip():
        raise BadRecord("has no caption: no summary, and no name of its app")
    pictures = [root / "combined" / f"{path.stem}{suffix}" for suffix in (".jpg", ".png")]
    picture = next((p for p in pictures if p.is_file()), pictures[0])
    image = loaded(picture, root)
    try:
        tree = json.loads(path.read_text())
    except json.JSONDecodeError:
        raise BadRecord("has annotations that are no JSON") from None
    bounds = four_numbers(tree.get("bounds")) if isinstance(tree, Mapping) else None
    if bounds is None or min(bounds[2:]) <= 0:
        raise BadRecord("has no bounds [left, top, right, bottom]")
    screen_px = bounds[2], bounds[3]
    background = prevailing_colours(image, Box(0, 0, 1000, 1000))[0]
    elements = []
    for child in tree.get("children") or ():
        elements += _elements(child, screen_px, image)
    caption = prompt_for(what, elements)
    return Entry(picture, image.size, caption, sourced(elements, caption), background)


def _elements(node: Any, screen_px: tuple[float, float], image: Image.Image) -> list[Element]:
    """A node and what lies in it, in the order of the hierarchy, which is the order of paint."""
    bounds = four_numbers(node.get("bounds")) if isinstance(node, Mapping) else None
    if bounds is None:
        raise BadRecord("has a node without bounds [left, top, right, bottom]")
    (left, top, right, foot), found = bounds, []
    seen = max(left, 0) < min(right, screen_px[0]) and max(top, 0) < min(foot, screen_px[1])
    if seen:
        box = left, top, right - left, foot - top
        found += _own(node, box, screen_px, image)
    for child in node.get("children") or ():
        found += _elements(child, screen_px, image)
    return found


def _own(
    node: Mapping[str, Any],
    box: tuple[float, float, float, float],
    screen_px: tuple[float, float],
    image: Image.Image,
) -> list[Element]:
    label, string = node.get("componentLabel", ""), fold(str(node.get("text") or ""))
    place = clipped(box, screen_px)
    ground, ink = prevailing_colours(image, place)
    if label == "Icon":
        name = str(node.get("iconClass") or "")
        if name in _ICONS:
            return [Shape(_ICONS[name], place, ink)]  # type: ignore[arg-type]  # kinds are literals
        return [Picture(place, f"an icon: {name.replace('_', ' ')}" if name else "an icon")]
    if label in _PICTURES:
        return [Picture(place, _PICTURES[label])]
    found: list[Element] = []
    if label in ("Text Button", "Input"):
        found.append(Shape("rounded", place, ground))
    elif label in _SHAPES:
        kind, paint = _SHAPES[label]
        colour = ground if paint == "fill" and kind != "line" else ink
        found.append(Shape(kind, place, colour, paint))  # type: ignore[arg-type]
    if string and label in (*_TEXTS, "Checkbox", "Radio Button", "On/Off Switch"):
        placed(list(box), screen_px)  # refuses words that the edge cuts
        lines = _broken(string, box[2], box[3])
        size_milli = max(round(place.height / len(lines) / PITCH), 1)
        kind: Any = _TEXTS.get(label, "label")
        align = "center" if kind == "button" else "left"
        found.append(Text(kind, lines, place, size_milli=size_milli, colour=ink, align=align))
    return found


def _broken(string: str, width: float, height: float) -> tuple[str, ...]:
    """The fewest lines, broken at blanks, that fit a box when they fill its height."""
    font = CANONICAL_FACES["sans"].font("regular", _MEASURED_PX)
    words = string.split()
    for count in range(1, len(words) + 1):
        size = height / count / PITCH
        lines: list[str] = []
        for word in words:
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and font.getlength(longer) * size / _MEASURED_PX <= width:
                lines[-1] = longer
            else:
                lines.append(word)
        if len(lines) <= count:
            return tuple(lines)
    return tuple(words)
