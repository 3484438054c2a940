"""What a caller fixes before anything is planned: colours, the places of quoted strings, and what
stays free."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from blueprint.schema import BlueprintError, Box, require_colour


@dataclasses.dataclass(frozen=True)
class Wishes:
    """An empty `palette` leaves the colours open. `boxes` are by quoted string as the page prints
    it; nothing but outlines is put on `keep_free`."""

    palette: tuple[str, ...] = ()
    boxes: Mapping[str, Box] = dataclasses.field(default_factory=dict)
    keep_free: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        for i, colour in enumerate(self.palette):
            require_colour(colour, f"palette[{i}]")
        for string, box in self.boxes.items():
            box.check(f"boxes[{string!r}]")
        for i, box in enumerate(self.keep_free):
            box.check(f"keep_free[{i}]")

    def require_quoted(self, quotes: tuple[str, ...]) -> None:
        """Raise `BlueprintError` for a place of a string that the prompt does not quote."""
        for string in self.boxes:
            if string not in quotes:
                said = ", ".join(f'"{q}"' for q in quotes) or "nothing"
                raise BlueprintError(
                    f"boxes[{string!r}]", f"is not quoted; the prompt quotes {said}"
                )


def _box(value: Any, path: str) -> Box:
    if not isinstance(value, list) or len(value) != 4:
        raise BlueprintError(path, f"{value!r} is not [left, top, width, height] in thousandths")
    return Box(*value)


def from_json(text: str) -> Wishes:
    """Wishes from `{"palette": [...], "boxes": {string: [l, t, w, h]}, "keep_free": [[...]]}`; each
    part may be missing. Raises `BlueprintError` with the path of what is wrong."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as problem:
        where = f"line {problem.lineno}, column {problem.colno}"
        raise BlueprintError("wishes", f"is no JSON at {where}: {problem.msg}") from None
    shapes: dict[str, type] = {"palette": list, "boxes": dict, "keep_free": list}
    if not isinstance(value, dict):
        raise BlueprintError("wishes", f"{value!r} is not an object")
    for key, part in value.items():
        if key not in shapes:
            raise BlueprintError(key, f"is no wish; there are {', '.join(shapes)}")
        if not isinstance(part, shapes[key]):
            raise BlueprintError(key, f"{part!r} is not a {shapes[key].__name__}")
    boxes = {s: _box(b, f"boxes[{s!r}]") for s, b in value.get("boxes", {}).items()}
    free = tuple(_box(b, f"keep_free[{i}]") for i, b in enumerate(value.get("keep_free", ())))
    return Wishes(tuple(value.get("palette", ())), boxes, free)
