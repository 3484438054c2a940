"""One image of somebody's data set and what is known to stand on it: what every format in
`train/data/formats/` is read into, how it becomes a record, and how bad ones are reported."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from blueprint.copying import fold, quoted
from blueprint.schema import Blueprint, BlueprintError, Box, Element, Text
from blueprint.typeset import PITCH

Record = dict[str, Any]
_NAMED = 5  # bad records that a message names of each kind
_SLACK_PX = 1.0  # what rounding may put a box past its image
_QUOTES = re.compile("[\"'“”„«»‘’]")


class SourceError(ValueError):
    """Records that cannot be used; the message counts and names them."""


class BadRecord(ValueError):
    """What is wrong with one record, said as the end of a sentence that begins with its name."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """An image, its caption and its elements, with places and sizes in thousandths of the image."""

    image: Path
    size_px: tuple[int, int]
    caption: str
    elements: tuple[Element, ...] = ()
    background: str = "#fff"


Named = tuple[str, Callable[[], Entry]]  # a record's name, and what reads it or raises BadRecord


def refuse(problem: str) -> Entry:
    """A record that cannot be read: raises `BadRecord`."""
    raise BadRecord(problem)


def json_file(path: Path, what: str, parts: Mapping[str, type]) -> Mapping[str, Any]:
    """The mapping in a JSON file of a format called `what`, which has these
    parts of these types (`list` or `dict`).

    Raises `FileNotFoundError` without the file, `SourceError` when it is of another format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; set the source's path to {what}'s JSON file")
    try:
        whole = json.loads(path.read_text())
    except ValueError as problem:
        raise SourceError(f"{path} is no JSON ({problem}): fetch or write it anew") from None
    found = whole if isinstance(whole, Mapping) else {}
    missing = [f"{t.__name__} `{key}`" for key, t in parts.items() if type(found.get(key)) is not t]
    if missing:
        raise SourceError(f"{path} is no {what} file: it has no {' and no '.join(missing)}")
    return whole


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """(its name, the value) of every line of a JSONL file; None for a line that is no JSON."""
    for number, line in enumerate(path.read_text().removesuffix("\n").split("\n"), 1):
        try:
            yield f"line {number}", json.loads(line)
        except json.JSONDecodeError:
            yield f"line {number}", None


def gather(
    records: Iterable[Named], where: Path | str, *, skip_bad: bool = False
) -> tuple[tuple[Entry, ...], dict[str, int]]:
    """The sound entries in order, and how many others there are by what is wrong with them.

    Raises `SourceError` when a record is bad, unless `skip_bad`, and when none is sound.
    """
    entries = []
    bad: dict[str, list[str]] = collections.defaultdict(list)
    for name, read in tqdm(records, desc="check", unit="record", delay=5, mininterval=5):
        try:
            entries.append(read())
        except BadRecord as problem:
            bad[str(problem)].append(name)
    return tuple(entries), report(bad, len(entries), where, skip_bad=skip_bad)


def report(
    bad: Mapping[str, Sequence[str]], num_sound: int, where: Path | str, *, skip_bad: bool
) -> dict[str, int]:
    """How many records have each problem; raises `SourceError` as `gather` says."""
    counts = {problem: len(names) for problem, names in bad.items()}
    if (bad and not skip_bad) or not num_sound:
        listed = "; ".join(
            f"{len(names)} {problem}: {', '.join(names[:_NAMED])}" for problem, names in bad.items()
        )
        raise SourceError(
            f"{where} has {sum(counts.values())} bad records and {num_sound} good ones "
            f"({listed or 'it is empty'}): mend them, or set config.data.skip_bad to go on without"
        )
    return counts


def said(caption: Any) -> str:
    """A caption as it is; raises `BadRecord` unless it is a string with letters in it."""
    if not isinstance(caption, str) or not caption.strip():
        raise BadRecord("has no caption")
    return caption


def loaded(path: Path, root: Path) -> Image.Image:
    """The whole image at a path within `root`; raises `BadRecord` for one that is elsewhere,
    missing or damaged."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise BadRecord("lies outside the folder")
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError):  # Pillow raises both for damaged files
        raise BadRecord("is missing or broken") from None


def begun(value: Any, key: str, root: Path) -> tuple[Path, tuple[int, int], str]:
    """(path, size in pixels, caption) of a record that names its image within `root` by `key`.

    Raises `BadRecord` when it does not, or has no caption, or the image cannot be read.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get(key), str):
        raise BadRecord("names no image")
    caption, path = said(value.get("caption")), root / value[key]
    return path, loaded(path, root).size, caption


def number(value: Any, what: str) -> float:
    """A number, 0.0 for what is missing; raises `BadRecord` for anything else."""
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        raise BadRecord(f"has {what} that is no number") from None


def four_numbers(value: Any) -> tuple[float, float, float, float] | None:
    """A list of four finite numbers as floats, or None."""
    if not isinstance(value, Sequence | np.ndarray) or len(value) != 4:
        return None
    if not all(isinstance(n, int | float | np.number) and not isinstance(n, bool) for n in value):
        return None
    left, top, width, height = map(float, value)
    found = left, top, width, height
    return found if all(map(math.isfinite, found)) else None


def placed(box: Any, size_px: tuple[float, float]) -> Box:
    """The place of [left, top, width, height] in pixels of an image of that size.

    Raises `BadRecord` for what is no box, and for one that reaches past the image by more than a
    pixel.
    """
    numbers = four_numbers(box)
    if numbers is None or min(numbers[2:]) <= 0:
        raise BadRecord("has a box that is not [left, top, width, height]")
    left, top, width, height = numbers
    right, foot = left + width - size_px[0], top + height - size_px[1]
    if min(left, top) < -_SLACK_PX or max(right, foot) > _SLACK_PX:
        raise BadRecord("has a box that reaches past the image")
    return clipped(numbers, size_px)


def clipped(box: tuple[float, float, float, float], size_px: tuple[float, float]) -> Box:
    """The place of what an image of that size shows of a box, which is some of it."""
    (left, top, width, height), (across, down) = box, size_px
    x, right = (round(1000 * min(max(n, 0), across) / across) for n in (left, left + width))
    y, foot = (round(1000 * min(max(n, 0), down) / down) for n in (top, top + height))
    x, y = min(x, 999), min(y, 999)
    return Box(x, y, max(right - x, 1), max(foot - y, 1))


def line_of(string: Any, place: Box) -> Text:
    """A line of text where only its letters and its box are known: plain black sans of that
    height; raises `BadRecord` for a line without letters."""
    if not isinstance(string, str) or not fold(string):
        raise BadRecord("has a line without text")
    size_milli = max(round(place.height / PITCH), 1)
    return Text("body", (fold(string),), place, size_milli=size_milli, source="free")


def sourced(elements: Iterable[Element], caption: str) -> tuple[Element, ...]:
    """The elements with every text that the caption quotes `verbatim` and all others `free`.

    Raises `BadRecord` for an element that breaks the blueprint's schema.
    """
    asked = set(quoted(caption))
    found = []
    for element in elements:
        if isinstance(element, Text):
            source = "verbatim" if element.string in asked else "free"
            element = dataclasses.replace(element, source=source)
        try:
            element.check("element")
        except BlueprintError as problem:
            raise BadRecord(f"has an element that no blueprint can have ({problem})") from None
        found.append(element)
    return tuple(found)


def prompt_for(what: str, elements: Iterable[Element]) -> str:
    """A prompt for a page that has no caption: what it is, and every text on it in quotes.

    A text that holds both kinds of double quotes cannot be quoted and goes unsaid.
    """
    what = fold(_QUOTES.sub("", what) if quoted(what) else what)
    texts = []
    for string in (e.string for e in elements if isinstance(e, Text)):
        if '"' not in string:
            texts.append(f'"{string}"')
        elif not set("“”") & set(string):
            texts.append(f"“{string}”")
    return f"{what} with {', '.join(texts)}" if texts else what


def refit(
    entry_px: tuple[int, int],
    page_px: tuple[int, int],
    elements: Iterable[Element],
    background: str = "#fff",
) -> Blueprint:
    """The blueprint of a page on which an image of `entry_px` is as large as it can be, in the
    middle."""
    zoom = min(page_px[0] / entry_px[0], page_px[1] / entry_px[1])
    share = entry_px[0] * zoom / page_px[0], entry_px[1] * zoom / page_px[1]
    return Blueprint(*page_px, background, tuple(_moved(e, share) for e in elements))


def _moved(element: Element, share: tuple[float, float]) -> Element:
    box, (across, down) = element.box, share
    left = min(round(500 * (1 - across) + box.left * across), 999)
    top = min(round(500 * (1 - down) + box.top * down), 999)
    width = min(max(round(box.width * across), 1), 1000 - left)
    height = min(max(round(box.height * down), 1), 1000 - top)
    element = dataclasses.replace(element, box=Box(left, top, width, height))
    if isinstance(element, Text):
        size_milli = max(round(element.size_milli * down), 1)
        return dataclasses.replace(element, size_milli=size_milli)
    return element


def page_pixels(image: Image.Image, page_px: tuple[int, int], background: str) -> np.ndarray:
    """An image where `refit` puts it, over the background: uint8 [Y X 3]."""
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, background)
        ground.alpha_composite(image.convert("RGBA"))
        image = ground
    page = image.convert("RGB")
    return np.asarray(ImageOps.pad(page, page_px, Image.Resampling.LANCZOS, color=background))


def prevailing_colours(image: Image.Image, place: Box) -> tuple[str, str]:
    """(ground, ink) of a place: its most common colour of four bits a channel, and the most common
    one that differs from it plainly, or else the ground again."""
    left, top, width, height = place.pixels(*image.size)
    part = image.crop((int(left), int(top), math.ceil(left + width), math.ceil(top + height)))
    part = part.convert("RGB")
    part.thumbnail((64, 64), Image.Resampling.NEAREST)
    digits = np.rint(np.asarray(part).reshape(-1, 3) / 17).astype(int)
    found, counts = np.unique(digits, axis=0, return_counts=True)
    found = found[np.argsort(-counts, kind="stable")]
    apart = found[np.abs(found - found[0]).max(axis=1) >= 5]
    names = ["#" + "".join(f"{n:x}" for n in row) for row in (found[0], *apart[:1])]
    return names[0], names[-1]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Records `{prompt, blueprint, pixels}` of entries on pages of one size; without the pixels,
    and so without opening an image, unless `painted`."""

    entries: tuple[Entry, ...]
    width_px: int
    height_px: int
    painted: bool = True

    def __len__(self) -> int:
        return len(self.entries)

    def native_px(self) -> list[tuple[int, int]]:
        """(width, height) of every image."""
        return [entry.size_px for entry in self.entries]

    def at_size(self, page_px: tuple[int, int], indices: Sequence[int]) -> Fitted:
        """Some of the records, on pages of another size."""
        chosen = tuple(self.entries[i] for i in indices)
        return Fitted(chosen, *page_px, painted=self.painted)

    def __getitem__(self, index: int) -> Record:
        entry, page_px = self.entries[int(index)], (self.width_px, self.height_px)
        blueprint = refit(entry.size_px, page_px, entry.elements, entry.background)
        record = {"prompt": entry.caption, "blueprint": blueprint}
        if not self.painted:
            return record
        with Image.open(entry.image) as image:
            return {**record, "pixels": page_pixels(image, page_px, entry.background)}
