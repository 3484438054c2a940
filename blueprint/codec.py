"""Blueprint to ids and back, an exact inverse.

A text's words precede its style and its box: whoever places it knows how long it is. Its colour
comes last: whoever inks it knows what it lies on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blueprint import vocab
from blueprint.schema import PAGE_UNIT_PX, Blueprint, Box, Element, Picture, Shape, Text


class CodecError(ValueError):
    """Ids that are no blueprint; the message names the position."""


def _colour(colour: str) -> list[int]:
    return [vocab.hex_digit(int(digit, 16)) for digit in colour[1:]]


def _box(box: Box) -> list[int]:
    return [vocab.number(n) for n in (box.left, box.top, box.width, box.height)]


def _element(element: Element) -> list[int]:
    match element:
        case Text():
            ids = [vocab.token(n) for n in ("text", f"text:{element.kind}")]
            ids.append(vocab.token(f"source:{element.source}"))
            for i, line in enumerate(element.lines):
                ids += [vocab.token("line")] * (i > 0) + vocab.string(line)
            ids += [vocab.token("style"), vocab.token(f"font:{element.font}")]
            ids += [vocab.token(f"weight:{element.weight}"), vocab.number(element.size_milli)]
            ids.append(vocab.token(f"align:{element.align}"))
            return ids + _box(element.box) + _colour(element.colour)
        case Shape():
            ids = [vocab.token(n) for n in ("shape", f"shape:{element.kind}")]
            ids += [vocab.token(f"paint:{element.paint}"), *_colour(element.colour)]
        case Picture():
            ids = [vocab.token("picture"), *vocab.string(element.caption), vocab.token("style")]
    return ids + _box(element.box)


def encode(blueprint: Blueprint) -> list[int]:
    """The ids of a blueprint, from its version to `<end>`."""
    ids = [vocab.token("v1")]
    ids += [vocab.number(n // PAGE_UNIT_PX) for n in (blueprint.width_px, blueprint.height_px)]
    ids += _colour(blueprint.background)
    for element in blueprint.elements:
        ids += _element(element)
    return [*ids, vocab.token("end")]


class _Reader:
    """Takes ids one field at a time and says where something else was expected."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.names = [vocab.name(i) for i in ids]
        self.at = 0

    def field(self, kind: str) -> str:
        name = self.names[self.at] if self.at < len(self.names) else "nothing"
        prefix, _, value = name.partition(":")
        if prefix != kind:
            raise CodecError(f"id {self.at} is {name}, where {kind} belongs")
        self.at += 1
        return value

    def is_next(self, name: str) -> bool:
        if self.at < len(self.names) and self.names[self.at] == name:
            self.at += 1
            return True
        return False

    def number(self) -> int:
        return int(self.field("number"))

    def colour(self) -> str:
        return "#" + "".join(self.field("hex") for _ in range(3))

    def box(self) -> Box:
        return Box(self.number(), self.number(), self.number(), self.number())

    def string(self) -> str:
        start, data = self.at, bytearray()
        while self.at < len(self.names) and self.names[self.at].startswith("byte:"):
            data.append(int(self.field("byte"), 16))
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise CodecError(f"ids {start} to {self.at} are bytes that are no UTF-8") from None


def _read_text(read: _Reader) -> Text:
    kind, source = read.field("text"), read.field("source")
    lines = [read.string()]
    while read.is_next("line"):
        lines.append(read.string())
    read.field("style")
    style: dict[str, Any] = {"font": read.field("font"), "weight": read.field("weight")}
    style |= {"size_milli": read.number(), "align": read.field("align")}
    box, style["colour"] = read.box(), read.colour()
    return Text(kind, tuple(lines), box, source=source, **style)  # type: ignore[arg-type]  # checked by Blueprint


def _read_element(read: _Reader) -> Element:
    if read.is_next("text"):
        return _read_text(read)
    if read.is_next("picture"):
        caption = read.string()
        read.field("style")
        return Picture(read.box(), caption)
    read.field("shape")
    kind, paint, colour = read.field("shape"), read.field("paint"), read.colour()
    return Shape(kind, read.box(), colour, paint)  # type: ignore[arg-type]  # checked by Blueprint


def decode(ids: Sequence[int]) -> Blueprint:
    """The blueprint of ids; raises `CodecError` for ids that are none, `BlueprintError` for a bad
    field."""
    read = _Reader(ids)
    read.field("v1")
    width, height = read.number() * PAGE_UNIT_PX, read.number() * PAGE_UNIT_PX
    background = read.colour()
    elements = []
    while not read.is_next("end"):
        elements.append(_read_element(read))
    if read.at != len(ids):
        raise CodecError(f"id {read.at} follows the end")
    return Blueprint(width, height, background, tuple(elements))
