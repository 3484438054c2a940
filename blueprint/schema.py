"""What a page is made of: frozen dataclasses that say every word, place and style, and nothing of
pixels.

All lengths are integers in thousandths of the page (`_milli`): horizontal ones of its width,
vertical ones and type sizes of its height. Colours are `#rgb`, four bits a channel. Elements are
listed in paint order, and their texts, taken in that order, are the reading order.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Literal, get_args

VERSION = 1
PAGE_UNIT_PX = 8
MAX_PAGE_PX = 1000 * PAGE_UNIT_PX

TextKind = Literal[
    "title", "subtitle", "body", "label", "button", "price", "badge", "link", "field"
]
ShapeKind = Literal[
    "rectangle", "rounded", "pill", "ellipse", "line", "burst",
    "menu", "search", "heart", "star", "cart", "user", "check", "arrow", "bell", "home",
]  # fmt: skip
FontClass = Literal["sans", "serif", "rounded", "script"]
Weight = Literal["regular", "bold"]
Align = Literal["left", "center", "right"]
Source = Literal["verbatim", "free"]
Paint = Literal["fill", "outline"]

TEXT_KINDS: tuple[str, ...] = get_args(TextKind)
SHAPE_KINDS: tuple[str, ...] = get_args(ShapeKind)
FONT_CLASSES: tuple[str, ...] = get_args(FontClass)
WEIGHTS: tuple[str, ...] = get_args(Weight)
ALIGNS: tuple[str, ...] = get_args(Align)
SOURCES: tuple[str, ...] = get_args(Source)
PAINTS: tuple[str, ...] = get_args(Paint)

_COLOUR = re.compile(r"#[0-9a-f]{3}")


class BlueprintError(ValueError):
    """A blueprint that breaks the schema; `path` names the field, as in `elements[2].box.width`."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


def _require(holds: bool, path: str, problem: str) -> None:
    if not holds:
        raise BlueprintError(path, problem)


def _require_choice(value: object, choices: tuple[str, ...], path: str) -> None:
    _require(value in choices, path, f"{value!r} is not one of {', '.join(choices)}")


def _require_milli(value: object, path: str, *, least: int = 0) -> None:
    _require(
        isinstance(value, int) and not isinstance(value, bool) and least <= value <= 1000,
        path,
        f"{value!r} is not a whole number from {least} to 1000",
    )


def require_colour(value: object, path: str) -> None:
    """Raise `BlueprintError` unless the value is `#rgb`."""
    _require(
        isinstance(value, str) and _COLOUR.fullmatch(value) is not None,
        path,
        f"{value!r} is not a colour like #1af (three lower-case hexadecimal digits)",
    )


def _require_string(value: object, path: str) -> None:
    _require(
        isinstance(value, str) and value != "",
        path,
        f"{value!r} is not a string with letters in it",
    )
    assert isinstance(value, str)
    _require(value.strip() == value, path, f"{value!r} begins or ends with a blank")
    _require(value.isprintable(), path, f"{value!r} holds a character that cannot be printed")
    _require(
        not any(0xD800 <= ord(c) <= 0xDFFF for c in value), path, "holds half of a surrogate pair"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on the page, in thousandths of its width and height."""

    left: int
    top: int
    width: int
    height: int

    def check(self, path: str) -> None:
        """Raise `BlueprintError` unless the box has an area and lies on the page."""
        _require_milli(self.left, f"{path}.left")
        _require_milli(self.top, f"{path}.top")
        _require_milli(self.width, f"{path}.width", least=1)
        _require_milli(self.height, f"{path}.height", least=1)
        _require(
            self.left + self.width <= 1000, f"{path}.width", "reaches past the page's right edge"
        )
        _require(self.top + self.height <= 1000, f"{path}.height", "reaches past the page's foot")

    def pixels(self, width_px: int, height_px: int) -> tuple[float, float, float, float]:
        """(left, top, width, height) in pixels of a page of that size."""
        x, y = width_px / 1000, height_px / 1000
        return self.left * x, self.top * y, self.width * x, self.height * y


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """Words on the page. Each line takes an equal band of the box's height, in order.

    `source` says who chose the words: `verbatim` ones were quoted in the prompt, `free` ones are
    the planner's. `size_milli` is the type's em square.
    """

    kind: TextKind
    lines: tuple[str, ...]
    box: Box
    font: FontClass = "sans"
    weight: Weight = "regular"
    size_milli: int = 50
    colour: str = "#000"
    align: Align = "left"
    source: Source = "verbatim"

    @property
    def string(self) -> str:
        """The words as the prompt quotes them: the lines joined by blanks."""
        return " ".join(self.lines)

    def check(self, path: str) -> None:
        """Raise `BlueprintError` with the path of the first bad field."""
        _require_choice(self.kind, TEXT_KINDS, f"{path}.kind")
        _require(len(self.lines) > 0, f"{path}.lines", "is empty; a text has at least one line")
        for i, line in enumerate(self.lines):
            _require_string(line, f"{path}.lines[{i}]")
        self.box.check(f"{path}.box")
        _require_choice(self.font, FONT_CLASSES, f"{path}.font")
        _require_choice(self.weight, WEIGHTS, f"{path}.weight")
        _require_milli(self.size_milli, f"{path}.size_milli", least=1)
        require_colour(self.colour, f"{path}.colour")
        _require_choice(self.align, ALIGNS, f"{path}.align")
        _require_choice(self.source, SOURCES, f"{path}.source")


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """A flat figure or an icon, filled or outlined in one colour."""

    kind: ShapeKind
    box: Box
    colour: str
    paint: Paint = "fill"

    def check(self, path: str) -> None:
        """Raise `BlueprintError` with the path of the first bad field."""
        _require_choice(self.kind, SHAPE_KINDS, f"{path}.kind")
        self.box.check(f"{path}.box")
        require_colour(self.colour, f"{path}.colour")
        _require_choice(self.paint, PAINTS, f"{path}.paint")


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """A photograph or a drawing; its caption says what it shows and is not printed on the page."""

    box: Box
    caption: str

    def check(self, path: str) -> None:
        """Raise `BlueprintError` with the path of the first bad field."""
        self.box.check(f"{path}.box")
        _require_string(self.caption, f"{path}.caption")


Element = Text | Shape | Picture


@dataclasses.dataclass(frozen=True, slots=True)
class Blueprint:
    """A page locked up before printing. Building one checks every field (raises
    `BlueprintError`)."""

    width_px: int
    height_px: int
    background: str
    elements: tuple[Element, ...]
    version: int = VERSION

    def __post_init__(self) -> None:
        _require(
            self.version == VERSION,
            "version",
            f"{self.version!r} is not known here; this Letterpress reads version {VERSION}",
        )
        for name in ("width_px", "height_px"):
            value = getattr(self, name)
            _require(
                isinstance(value, int)
                and not isinstance(value, bool)
                and 0 < value <= MAX_PAGE_PX
                and value % PAGE_UNIT_PX == 0,
                name,
                f"{value!r} is not a multiple of {PAGE_UNIT_PX} up to {MAX_PAGE_PX}",
            )
        require_colour(self.background, "background")
        for i, element in enumerate(self.elements):
            element.check(f"elements[{i}]")

    @property
    def texts(self) -> Iterator[Text]:
        """The text elements in reading order."""
        return (e for e in self.elements if isinstance(e, Text))

    @property
    def words(self) -> tuple[str, ...]:
        """Every word on the page in reading order."""
        return tuple(w for t in self.texts for line in t.lines for w in line.split())
