"""Random-access sources of records: procedural pages, and any prepared TFDS data set mapped to the
same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
