"""A folder of images with `metadata.jsonl`, mapped to the records that procedural pages have.

A line of the file is `{"image": "a.png", "caption": "...", "lines": [{"text": "SALE", "box": [left,
top, width, height]}]}`: paths within the folder, boxes in pixels of the image, `lines` optional.
Everything is checked when the folder is opened, and what is wrong is reported by name.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from blueprint.copying import fold, quoted
from blueprint.schema import Blueprint, Box, Text
from blueprint.typeset import PITCH

Record = dict[str, Any]
_NAMED = 5  # bad records that a message names of each kind


class FolderError(ValueError):
    """Records that cannot be used; the message counts and names them."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image of a folder: its caption and its lines of text with (left, top, width, height) in
    pixels."""

    image: Path
    caption: str
    size_px: tuple[int, int]
    lines: tuple[tuple[str, tuple[float, float, float, float]], ...] = ()


def _problem(value: Any, root: Path) -> tuple[str, Entry | None]:
    """(what is wrong, or "", the entry)."""
    if not isinstance(value, Mapping) or not isinstance(value.get("image"), str):
        return "names no image", None
    caption = value.get("caption")
    if not isinstance(caption, str) or not caption.strip():
        return "has no caption", None
    path = root / value["image"]
    if not path.resolve().is_relative_to(root.resolve()):
        return "lies outside the folder", None
    try:
        with Image.open(path) as image:
            size = image.size
            image.load()
    except (OSError, SyntaxError):  # Pillow raises both for damaged files
        return "is missing or broken", None
    lines = []
    for line in value.get("lines", ()):
        text, box = (line.get("text"), line.get("box")) if isinstance(line, Mapping) else ("", None)
        sound = isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))
        if not isinstance(text, str) or not fold(text):
            return "has a line without text", None
        if not sound or min(box[:2]) < 0 or min(box[2:]) <= 0:  # type: ignore[index]  # it is a list
            return "has a box that is not [left, top, width, height]", None
        if box[0] + box[2] > size[0] or box[1] + box[3] > size[1]:  # type: ignore[index]
            return "has a box that reaches past the image", None
        lines.append((fold(text), tuple(map(float, box))))  # type: ignore[arg-type]
    return "", Entry(path, caption, size, tuple(lines))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_folder(root: Path, *, skip_bad: bool = False) -> tuple[tuple[Entry, ...], dict[str, int]]:
    """The sound entries in the file's order, and how many others there are by what is wrong.

    Raises `FileNotFoundError` without a metadata.jsonl, `FolderError` when a record is bad, unless
    `skip_bad`, and when none is sound.
    """
    path = Path(root) / "metadata.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"{root} has no metadata.jsonl; write one line an image, as train/data/folders.py says"
        )
    entries, bad = [], collections.defaultdict(list)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            bad["is no JSON"].append(f"line {number}")
            continue
        problem, entry = _problem(value, Path(root))
        if entry is None:
            name = value.get("image") if isinstance(value, Mapping) else None
            bad[problem].append(f"{name or 'a record'} (line {number})")
        else:
            entries.append(entry)
    counts = {problem: len(names) for problem, names in bad.items()}
    if (bad and not skip_bad) or not entries:
        listed = "; ".join(
            f"{len(names)} {problem}: {', '.join(names[:_NAMED])}" for problem, names in bad.items()
        )
        raise FolderError(
            f"{path} has {sum(counts.values())} bad records and {len(entries)} good ones "
            f"({listed or 'it is empty'}): mend them, or set config.data.skip_bad to go on without"
        )
    return tuple(entries), counts


@dataclasses.dataclass(frozen=True)
class Folder:
    """Records `{prompt, blueprint, pixels}` of a folder's entries, fitted into pages of one size
    over white.

    The blueprint has the annotated lines with their boxes; their style is not known, so it is plain
    black sans of the box's height, and a line is `verbatim` when the caption quotes it.
    """

    entries: tuple[Entry, ...]
    width_px: int
    height_px: int

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Record:
        entry = self.entries[int(index)]
        size = self.width_px, self.height_px
        with Image.open(entry.image) as image:
            page = ImageOps.pad(image.convert("RGB"), size, Image.Resampling.LANCZOS, color="white")
        blueprint = Blueprint(*size, "#fff", tuple(self._texts(entry)))
        return {"prompt": entry.caption, "blueprint": blueprint, "pixels": np.asarray(page)}

    def _texts(self, entry: Entry) -> list[Text]:
        width, height = entry.size_px
        zoom = min(self.width_px / width, self.height_px / height)
        bare_x = (self.width_px - width * zoom) / 2
        bare_y = (self.height_px - height * zoom) / 2
        asked = set(quoted(entry.caption))
        texts = []
        for string, (left, top, wide, high) in entry.lines:
            x, y = (left * zoom + bare_x) / self.width_px, (top * zoom + bare_y) / self.height_px
            box = Box(
                x_milli := min(max(round(1000 * x), 0), 999),
                y_milli := min(max(round(1000 * y), 0), 999),
                min(max(round(1000 * wide * zoom / self.width_px), 1), 1000 - x_milli),
                min(max(round(1000 * high * zoom / self.height_px), 1), 1000 - y_milli),
            )
            size_milli = max(round(box.height / PITCH), 1)
            source = "verbatim" if string in asked else "free"
            texts.append(Text("body", (string,), box, size_milli=size_milli, source=source))
        return texts
