"""Random-access sources of records: procedural pages, files in the formats that people hold, and
mixtures of them. In a config:

    "sources": {
        "drawn": {"format": "pages"},
        "signs": {"format": "folder", "path": "data/signs", "weight": 2.0},
        "words": {
            "format": "tfds", "path": "data/words/1.0.0", "split": "train[:90%]",
            "fields": {
                "image": "image", "caption": "caption", "line_text": "objects.text",
                "line_box": "objects.bbox", "box_format": "yxyx_unit",
            },
        },
    },
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from train.data.entries import Fitted, Named, Record, gather
from train.data.formats import anyword, coco_text, crello, folder, rico
from train.data.formats.prepared import FieldsConfig, Prepared
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import page, plan


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """The pages of `num_pages` seeds from `first_seed` on, which can be drawn at any size."""

    style: PageStyle
    num_pages: int
    first_seed: int = 0

    def __len__(self) -> int:
        return self.num_pages


@dataclasses.dataclass(frozen=True)
class Pages(_Drawn):
    """Records `{prompt, blueprint, pixels}` of `num_pages` seeds from `first_seed` on."""

    def __getitem__(self, index: int) -> Record:
        made = page(self.first_seed + int(index), self.style)
        return {"prompt": made.prompt, "blueprint": made.blueprint, "pixels": made.pixels}


@dataclasses.dataclass(frozen=True)
class Plans(_Drawn):
    """The same records without pixels, much faster."""

    def __getitem__(self, index: int) -> Record:
        prompt, blueprint = plan(self.first_seed + int(index), self.style)
        return {"prompt": prompt, "blueprint": blueprint}


_READERS: dict[str, Callable[[Path, str], Iterator[Named]]] = {
    "folder": lambda path, split: folder.read(path),
    "anyword": lambda path, split: anyword.read(path),
    "coco_text": coco_text.read,
    "crello": lambda path, split: crello.read(path),
    "rico": lambda path, split: rico.read(path),
}
_SPLIT = ("tfds", "coco_text")  # the formats that have splits
FORMATS = ("pages", "tfds", *_READERS)


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """Where pages come from: what lies at `path` in one of `FORMATS` (each says in
    `train/data/formats/` what it looks like), or `pages`, the procedural ones of `data.page`.

    In a mixture one of `weight` 2 gives twice as many pages as one of 1, whatever their sizes.
    `split` and `fields` are for data sets that have them.
    """

    format: str
    path: str = ""
    weight: float = 1.0
    split: str = "train"
    fields: FieldsConfig = dataclasses.field(default_factory=FieldsConfig)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format {self.format!r} is not one of {', '.join(FORMATS)}")
        if bool(self.path) == (self.format == "pages"):
            need = "has no path: its pages are drawn" if self.path else "needs a path"
            raise ValueError(f"format {self.format!r} {need}")
        if self.weight <= 0:
            raise ValueError(f"weight {self.weight} is not above 0; leave the source out instead")
        if self.split != "train" and self.format not in _SPLIT:
            raise ValueError(f"format {self.format!r} has no split {self.split!r}; leave it out")
        if self.fields != FieldsConfig() and self.format != "tfds":
            raise ValueError(f"format {self.format!r} has no fields; they are for tfds")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What a step takes, and from where: the `sources` by name, drawn by their weights and without
    their bad records if `skip_bad`, on pages as large as `page` says; with no sources `num_pages`
    procedural ones.

    A decoder trains on the records of code caches, folders `codes`, which hold `num_pages` in all,
    mixed by `code_weights` (by their sizes if there are none); which run's `tokenizer` shows what
    it prints is "" for no pictures. A planner says which `tokenizer.json` its prompts are read with
    ("" for bytes). `num_evaluation_pages` held-out pages are looked at meanwhile.

    `buckets` are further page sizes (width, height in pixels): a batch has pages of one size, an
    image goes to the size nearest to its shape, and procedural pages come in all of them alike.
    Evaluators and code caches keep to `page`.
    """

    page: PageStyle
    num_pages: int
    batch_size: int
    codes: tuple[str, ...] = ()
    code_weights: tuple[float, ...] = ()
    tokenizer: str = ""
    prompt_tokenizer: str = ""
    sources: Mapping[str, SourceConfig] = dataclasses.field(default_factory=dict)
    skip_bad: bool = False
    num_evaluation_pages: int = 16
    buckets: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for width, height in self.buckets:  # which is refused as the page's own size would be
            dataclasses.replace(self.page, width_px=width, height_px=height)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Every page size, (width, height) in pixels, that of `page` first."""
        further = ((width, height) for width, height in self.buckets)
        return (self.page.width_px, self.page.height_px), *further

    @property
    def is_procedural(self) -> bool:
        """Whether every page is drawn by `train/data/posters/`."""
        return all(source.format == "pages" for source in self.sources.values())


@dataclasses.dataclass(frozen=True)
class Sources:
    """Random-access records of each source, and how often each is drawn; None for a single one."""

    records: tuple[Any, ...]
    weights: tuple[float, ...] | None

    @property
    def share(self) -> float:
        """How often any of them is drawn, beside the sources of other buckets."""
        return sum(self.weights or (1.0,))


@dataclasses.dataclass(frozen=True)
class Joined:
    """Sources one after the other, as one."""

    parts: Sequence[Any]

    @functools.cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(itertools.accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        part = bisect.bisect_right(self._ends, int(index))
        return self.parts[part][int(index) - (self._ends[part - 1] if part else 0)]


def heldout(style: PageStyle) -> PageStyle:
    """Pages as those, of strings and typefaces that training never sees, every string quoted."""
    return dataclasses.replace(style, split="heldout", quoted="all")


def open_sources(data: DataConfig, procedural: Callable[..., Any]) -> Sources:
    """The sources of a config; `procedural(style, num_pages)` makes the drawn ones, and `Plans`
    means that no source need have pixels.

    Raises `SourceError` when records are bad (unless `skip_bad`), `FileNotFoundError` and
    `ValueError` as the formats say.
    """
    drawn = {"pages": SourceConfig("pages")}
    opened = [
        _open(name, source, data, procedural) for name, source in (data.sources or drawn).items()
    ]
    weights = tuple(source.weight for source in data.sources.values())
    return Sources(tuple(opened), weights if len(opened) > 1 else None)


def open_buckets(data: DataConfig, procedural: Callable[..., Any]) -> list[Sources]:
    """The sources of a config at each of its page sizes, those that have none left out, with
    weights that keep every source as frequent over all sizes as it should be.

    Raises as `open_sources`.
    """
    whole = open_sources(data, procedural)
    if not data.buckets:
        return [whole]
    weights = whole.weights or (1.0,)
    found: list[list[tuple[Any, float]]] = [[] for _ in data.sizes]
    for records, weight in zip(whole.records, weights, strict=True):
        for bucket, (part, share) in zip(found, _by_size(records, data.sizes), strict=True):
            bucket.extend([(part, weight * share)] if share else [])
    return [Sources(*map(tuple, zip(*bucket, strict=True))) for bucket in found if bucket]  # type: ignore[arg-type]  # pairs


def _by_size(records: Any, sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[Any, float]]:
    """The records for each page size, and their share of all."""
    if isinstance(records, _Drawn):
        for width, height in sizes:
            style = dataclasses.replace(records.style, width_px=width, height_px=height)
            yield dataclasses.replace(records, style=style), 1 / len(sizes)
        return
    aspects = np.log([width / height for width, height in sizes])
    own = np.log([width / height for width, height in records.native_px()])
    nearest = np.abs(own[:, None] - aspects).argmin(axis=1)
    for i, size in enumerate(sizes):
        indices = np.flatnonzero(nearest == i).tolist()
        yield records.at_size(size, indices), len(indices) / len(records)


def open_source(data: DataConfig, procedural: Callable[..., Any]) -> Any:
    """The sources of a config one after the other, as one and whatever their weights."""
    records = open_sources(data, procedural).records
    return records[0] if len(records) == 1 else Joined(records)


def _open(name: str, source: SourceConfig, data: DataConfig, procedural: Callable[..., Any]) -> Any:
    if source.format == "pages":
        return procedural(data.page, data.num_pages)
    path, page_px = Path(source.path), (data.page.width_px, data.page.height_px)
    records: Any
    painted = procedural is not Plans
    if source.format == "tfds":
        records = Prepared(path, source.split, source.fields, page_px, painted=painted)
        bad = records.without_bad(skip_bad=data.skip_bad)
    else:
        named = _READERS[source.format](path, source.split)
        entries, bad = gather(named, path, skip_bad=data.skip_bad)
        records = Fitted(entries, *page_px, painted=painted)
    for problem, count in bad.items():
        logging.warning("source %s (%s): left out %d that %s", name, path, count, problem)
    return records
