"""COCO-Text's JSON, with captions from MS COCO's.

`{"imgs": {"36": {"id": 36, "file_name": "COCO_train2014_....jpg", "set": "train"}}, "anns": {"1":
{"image_id": 36, "bbox": [left, top, width, height], "utf8_string": "SALE", "legibility":
"legible"}}}`. The set has no captions: an image's own `caption` is taken, or its first one in the
`captions_*.json` beside the file (`{"annotations": [{"image_id": 36, "caption": "..."}]}`); without
either it is a bad record. Texts that are illegible or not transcribed are left out of the blueprint
and stay on the picture. Images lie beside the file, or in `images/`, `train2014/` or `val2014/`.

Source: Veit et al., COCO-Text (2016), arXiv:1601.07140; the keys are those of coco_text.py of
github.com/andreasveit/coco-text, and of MS COCO's captions (cocodataset.org/#format-data).
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from train.data.entries import (
    Entry,
    Named,
    begun,
    json_file,
    line_of,
    placed,
    sourced,
)

_FOLDERS = (".", "images", "train2014", "val2014")


def read(path: Path, split: str) -> Iterator[Named]:
    """The records of a file whose `set` is the split; those without a `set` are in every one.

    Raises `FileNotFoundError` without the file, `SourceError` when it is of another format.
    """
    path = Path(path)
    whole = json_file(path, "COCO-Text", {"imgs": dict, "anns": dict})
    texts = collections.defaultdict(list)
    for line in whole["anns"].values():
        texts[str(line.get("image_id"))].append(line)
    captions = _captions(path.parent)
    for key, value in whole["imgs"].items():
        if value.get("set", split) != split:
            continue
        value = {"caption": captions.get(str(key)), **value}
        name = f"{value.get('file_name', 'an image')} (id {key})"
        yield name, functools.partial(_entry, value, texts[str(key)], path.parent)


def _captions(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.glob("captions_*.json")):
        for line in json_file(path, "COCO captions", {"annotations": list})["annotations"]:
            found.setdefault(str(line["image_id"]), line["caption"])
    return found


def _entry(value: Mapping[str, Any], texts: Sequence[Mapping[str, Any]], root: Path) -> Entry:
    name = str(value.get("file_name"))
    folders = [root / folder for folder in _FOLDERS if (root / folder / name).is_file()]
    path, size_px, caption = begun(value, "file_name", folders[0] if folders else root)
    lines = [
        line_of(text["utf8_string"], placed(text.get("bbox"), size_px))
        for text in texts
        if text.get("legibility", "legible") == "legible" and text.get("utf8_string")
    ]
    return Entry(path, size_px, caption, sourced(lines, caption))
