"""A folder of images with `metadata.jsonl`.

A line of the file is `{"image": "a.png", "caption": "...", "lines": [{"text": "SALE", "box": [left,
top, width, height]}]}`: paths within the folder, boxes in pixels of the image, `lines` optional.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from train.data.entries import (
    Entry,
    Named,
    begun,
    json_lines,
    line_of,
    placed,
    refuse,
    sourced,
)


def read(root: Path) -> Iterator[Named]:
    """The records of a folder; raises `FileNotFoundError` without a metadata.jsonl."""
    path = Path(root) / "metadata.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"{root} has no metadata.jsonl; write one line an image, as "
            "train/data/formats/folder.py says"
        )
    for place, value in json_lines(path):
        if value is None:
            yield place, functools.partial(refuse, "is no JSON")
            continue
        image = value.get("image") if isinstance(value, Mapping) else None
        yield f"{image or 'a record'} ({place})", functools.partial(_entry, value, Path(root))


def _entry(value: Any, root: Path) -> Entry:
    path, size_px, caption = begun(value, "image", root)
    lines = []
    for line in value.get("lines") or ():
        line = line if isinstance(line, Mapping) else {}
        lines.append(line_of(line.get("text"), placed(line.get("box"), size_px)))
    return Entry(path, size_px, caption, sourced(lines, caption))
