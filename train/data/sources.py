"""Random-access sources of records: procedural pages, and any prepared TFDS data set mapped to the
same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging

from train.data.folders import Folder, read_folder
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import page, plan

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Pages:
    """Records `{prompt, blueprint, pixels}` of `num_pages` seeds from `first_seed` on."""

    style: PageStyle
    num_pages: int
    first_seed: int = 0

    def __len__(self) -> int:
        return self.num_pages

    def __getitem__(self, index: int) -> Record:
        made = page(self.first_seed + int(index), self.style)
        return {"prompt": made.prompt, "blueprint": made.blueprint, "pixels": made.pixels}


@dataclasses.dataclass(frozen=True)
class Plans:
    """The same records without pixels, much faster."""

    style: PageStyle
    num_pages: int
    first_seed: int = 0

    def __len__(self) -> int:
        return self.num_pages

    def __getitem__(self, index: int) -> Record:
        prompt, blueprint = plan(self.first_seed + int(index), self.style)
        return {"prompt": prompt, "blueprint": blueprint}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared TFDS data set in ArrayRecord, read without TensorFlow; `to_record` maps an
    example."""

    examples: Any
    to_record: Callable[[Any], Record]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Record:
        return self.to_record(self.examples[int(index)])


def tfds_source(folder: Path, split: str, to_record: Callable[[Any], Record]) -> Prepared:
    """Open `<name>/<version>` of a prepared data set; raises `FileNotFoundError` when there is
    none."""
    if not (Path(folder) / "dataset_info.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no prepared TFDS data set (no dataset_info.json); "
            "prepare it with tfds build"
        )
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(str(folder))
    return Prepared(builder.as_data_source(split=split), to_record)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Procedural pages: their style, how many there are, how many a step takes; or, of that size,
    the images of a `folder` (see folders.py), without its bad records if `skip_bad`.

    A decoder trains on the records of code caches, folders `codes`, which hold `num_pages` in all,
    mixed by `code_weights` (by their sizes if there are none); which run's `tokenizer` shows what
    it prints is "" for no pictures. A planner says which `tokenizer.json` its prompts are read with
    ("" for bytes). `num_evaluation_pages` held-out pages are looked at meanwhile.
    """

    page: PageStyle
    num_pages: int
    batch_size: int
    codes: tuple[str, ...] = ()
    code_weights: tuple[float, ...] = ()
    tokenizer: str = ""
    prompt_tokenizer: str = ""
    folder: str = ""
    skip_bad: bool = False
    num_evaluation_pages: int = 16


def heldout(style: PageStyle) -> PageStyle:
    """Pages as those, of strings and typefaces that training never sees, every string quoted."""
    return dataclasses.replace(style, split="heldout", quoted="all")


def open_source(data: DataConfig, procedural: Callable[..., Any]) -> Any:
    """The folder's records if there is one, else those of `procedural(style, num_pages)`."""
    if not data.folder:
        return procedural(data.page, data.num_pages)
    entries, bad = read_folder(Path(data.folder), skip_bad=data.skip_bad)
    for problem, count in bad.items():
        logging.warning("%s: left out %d that %s", data.folder, count, problem)
    return Folder(entries, data.page.width_px, data.page.height_px)
