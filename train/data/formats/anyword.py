"""AnyWord-3M's JSON, as AnyText trains on it.

`{"data_root": "imgs", "data_list": [{"img_name": "a.jpg", "caption": "...", "annotations":
[{"polygon": [[x, y], ...], "text": "SALE", "language": "Latin", "valid": true}]}]}`. Polygons are
in pixels of the image and become the boxes around them, so a slanted line's box is larger than the
line. Lines that the set marks `valid: false` or `illegibility: true` have letters that nobody
read: they are left out of the blueprint and stay on the picture. `data_root` is relative to the
file.

Source: Tuo et al., AnyText (ICLR 2024), arXiv:2311.03054; the keys are those that `load_data` in
t3_dataset.py of github.com/tyxsspa/AnyText reads.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from train.data.entries import (
    BadRecord,
    Entry,
    Named,
    begun,
    json_file,
    line_of,
    placed,
    sourced,
)


def read(path: Path) -> Iterator[Named]:
    """The records of a data.json, or of the one in a folder.

    Raises `FileNotFoundError` without one, `SourceError` when it is of another format.
    """
    path = Path(path) / "data.json" if Path(path).is_dir() else Path(path)
    whole = json_file(path, "AnyWord", {"data_list": list})
    root = path.parent / whole.get("data_root", "")
    if not root.is_dir():
        raise FileNotFoundError(
            f"{path} keeps its images in {root}, which is not here: set its data_root to where they"
            " are"
        )
    for number, value in enumerate(whole["data_list"]):
        image = value.get("img_name") if isinstance(value, Mapping) else None
        yield f"{image or 'a record'} (number {number})", functools.partial(_entry, value, root)


def _entry(value: Any, root: Path) -> Entry:
    path, size_px, caption = begun(value, "img_name", root)
    lines = []
    for line in value.get("annotations") or ():
        if not isinstance(line, Mapping) or not isinstance(line.get("polygon"), list):
            raise BadRecord("has a line without a polygon")
        unread = line.get("valid") is False or line.get("illegibility") is True
        if unread or not line["polygon"]:
            continue
        lines.append(line_of(line.get("text"), placed(_around(line["polygon"]), size_px)))
    return Entry(path, size_px, caption, sourced(lines, caption))


def _around(polygon: list[Any]) -> list[float]:
    try:
        xs, ys = zip(*((float(x), float(y)) for x, y in polygon), strict=True)
    except (TypeError, ValueError):
        raise BadRecord("has a polygon that is not [[x, y], ...]") from None
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
