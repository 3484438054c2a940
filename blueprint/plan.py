"""A picture of the plan, for people: where each element stands, what it is, and what it says."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import resvg_py
from PIL import Image

from blueprint.schema import Blueprint, Box, Picture, Shape, Text
from blueprint.typeset import CANONICAL_FACES

_ROLE_COLOURS = {"text": "#d6336c", "shape": "#1c7ed6", "picture": "#2b8a3e"}
_ANCHORS = {"left": ("start", 0.0), "center": ("middle", 0.5), "right": ("end", 1.0)}
_FAMILIES = {
    "sans": "Helvetica, Arial, sans-serif", "serif": "Georgia, serif",
    "rounded": "Verdana, sans-serif", "script": "cursive",
}  # fmt: skip


def to_svg(blueprint: Blueprint, *, scale: float = 4.0) -> str:
    """The plan as a stand-alone SVG of `scale` units a pixel: boxes, roles and strings."""
    W, H = blueprint.width_px * scale, blueprint.height_px * scale  # sides of the drawing
    root = ElementTree.Element(
        "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {W:g} {H:g}",
        width=f"{W:g}", height=f"{H:g}",
    )  # fmt: skip
    _rect(root, (0, 0, W, H), fill=blueprint.background)
    for element in blueprint.elements:
        box = _scaled(element.box, W, H)
        match element:
            case Text():
                _text(root, element, box, height=H)
            case Shape():
                _shape(root, element, box)
            case Picture():
                _rect(root, box, fill="#adb5bd", fill_opacity="0.5")
                _role(root, box, f"picture: {element.caption}", "picture")
    return ElementTree.tostring(root, encoding="unicode")


def to_pixels(blueprint: Blueprint, *, scale: float = 4.0) -> np.ndarray:
    """The same drawing as uint8 [Y X 3], set in the canonical faces."""
    files = [str(face.path(w)) for face in CANONICAL_FACES.values() for w in ("regular", "bold")]
    png = resvg_py.svg_to_bytes(
        svg_string=to_svg(blueprint, scale=scale), skip_system_fonts=True, font_files=files,
        font_family="Roboto", sans_serif_family="Roboto", monospace_family="Roboto",
        serif_family="Source Serif Pro", cursive_family="Amatic SC",
    )  # fmt: skip
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


def _scaled(box: Box, W: float, H: float) -> tuple[float, float, float, float]:
    return box.left * W / 1000, box.top * H / 1000, box.width * W / 1000, box.height * H / 1000


def _rect(root: ElementTree.Element, box: tuple[float, ...], **style: str) -> None:
    names = ("x", "y", "width", "height")
    place = {name: f"{value:g}" for name, value in zip(names, box, strict=True)}
    style = {key.replace("_", "-"): value for key, value in style.items()}
    ElementTree.SubElement(root, "rect", {**place, **style})


def _role(root: ElementTree.Element, box: tuple[float, ...], label: str, role: str) -> None:
    """The dashed outline of an element and its name in small type above it."""
    colour = _ROLE_COLOURS[role]
    _rect(root, box, fill="none", stroke=colour, stroke_dasharray="4 3")
    place = {"x": f"{box[0] + 2:g}", "y": f"{max(box[1] - 2, 8):g}"}
    style = {"font-size": "9", "font-family": "monospace", "fill": colour}
    ElementTree.SubElement(root, "text", {**place, **style}).text = label


def _shape(root: ElementTree.Element, shape: Shape, box: tuple[float, ...]) -> None:
    rounded = {"rounded": 0.2, "pill": 0.5, "ellipse": 0.5, "burst": 0.3}.get(shape.kind, 0.0)
    filled = shape.paint == "fill"
    _rect(
        root, box, fill=shape.colour if filled else "none", stroke=shape.colour,
        rx=f"{rounded * min(box[2:]):g}",
    )  # fmt: skip
    if shape.kind not in ("rectangle", "rounded", "pill", "ellipse", "line"):
        _role(root, box, shape.kind, "shape")


def _text(root: ElementTree.Element, text: Text, box: tuple[float, ...], *, height: float) -> None:
    anchor, share = _ANCHORS[text.align]
    pitch = box[3] / len(text.lines)
    style = {
        "font-size": f"{text.size_milli * height / 1000:g}",
        "font-family": _FAMILIES[text.font],
        "font-weight": "bold" if text.weight == "bold" else "normal",
        "fill": text.colour,
        "text-anchor": anchor,
    }
    for i, line in enumerate(text.lines):
        place = {"x": f"{box[0] + share * box[2]:g}", "y": f"{box[1] + (i + 0.76) * pitch:g}"}
        ElementTree.SubElement(root, "text", {**place, **style}).text = line
    _role(root, box, f"{text.kind} ({text.source})", "text")
