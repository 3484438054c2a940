"""Cases to look at: which are shown, and their pictures as files beside the page."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from evals.differences import Difference, counts, difference

NUM_WORST = NUM_RANDOM = 24  # so that 8,000 pictures make a page of a few MB
LONGEST_PX = 1024  # larger pictures are shown smaller
LOSSLESS_PX = 512  # up to this size as PNG

_OURS = re.compile(r"[A-Za-z0-9_]+\.(png|jpg|svg)")

Picture = np.ndarray | Path | Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class GalleryRow:
    """One scored picture and how it came about.

    `pictures` has it by stage, first to last, or alone under any name, as uint8 [Y X 3], as a file
    or as a function that makes it; `reads` has the strings read on each. The last stage is the one
    that is scored. `plan` is the planner's blueprint as SVG. `language` is as in `scoring.Case`.
    """

    name: str
    prompt: str
    targets: tuple[str, ...]
    pictures: Mapping[str, Picture]
    reads: Mapping[str, Sequence[str]]
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
    plan: str | None = None
    language: str = "en"

    def __post_init__(self) -> None:
        if not self.pictures or set(self.pictures) != set(self.reads):
            raise ValueError(
                f"case {self.name!r} has pictures of {sorted(self.pictures)} and reads of "
                f"{sorted(self.reads)}: hand in both of each stage, and of one at least"
            )


@dataclasses.dataclass(frozen=True)
class Shown:
    """A stage of a row on the page: the link and size of its picture, None for one that could not
    be opened, and what was read."""

    stage: str
    link: str | None
    size_px: tuple[int, int]
    difference: Difference


@dataclasses.dataclass(frozen=True)
class ShownRow:
    """A row on the page."""

    row: GalleryRow
    stages: tuple[Shown, ...]
    plan_link: str | None

    @property
    def final(self) -> Shown:
        """The stage that is scored."""
        return self.stages[-1]


def chosen(rows: Sequence[GalleryRow]) -> dict[str, list[GalleryRow]]:
    """The rows to show, by title: those that lost the largest share of their words, and random
    ones drawn from all; or all rows, if they are no more than that. Always the same of the same
    rows."""
    worst = sorted(range(len(rows)), key=lambda i: _goodness(rows[i]))
    if len(rows) <= NUM_WORST + NUM_RANDOM:
        return {"all, worst first": [rows[i] for i in worst]} if rows else {}
    drawn = random.Random(0).sample(range(len(rows)), NUM_RANDOM)
    return {
        "worst": [rows[i] for i in worst[:NUM_WORST]],
        "random": [rows[i] for i in sorted(drawn)],
    }


def _goodness(row: GalleryRow) -> tuple[float, int]:
    """The share of words that came through; of equal ones, more words that nobody asked for are
    worse."""
    read = row.reads[list(row.pictures)[-1]]
    num_hits, num_words, num_read = counts(row.targets, read, language=row.language)
    return num_hits / num_words if num_words else 1.0, num_hits - num_read


class PictureFiles:
    """`pictures/` of a report's folder, with a list beside it of the files that a report put there:
    a later report may take away those and no others."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._list = folder, folder / "pictures.txt"
        self._before = set(self._list.read_text().split()) if self._list.is_file() else set()
        self._written: dict[str, None] = {}

    def take(self, name: str) -> tuple[Path, str]:
        """The path of a file about to be written, and the page's link to it. It is on the list from
        now on, so that it is known even of a report that broke off."""
        (self._folder / "pictures").mkdir(parents=True, exist_ok=True)
        self._written[name] = None
        with self._list.open("a") as file:
            file.write(f"{name}\n")
        link = f"pictures/{name}"
        return self._folder / link, link

    def clear(self) -> None:
        """Remove what earlier reports wrote and this one did not."""
        for name in self._before - set(self._written):
            if _OURS.fullmatch(name):  # a name of a picture, and no path out of here
                (self._folder / "pictures" / name).unlink(missing_ok=True)
        if self._before or self._written:
            self._list.write_text("".join(f"{name}\n" for name in self._written))


def shown(
    pictures: PictureFiles, rows: Mapping[str, Sequence[GalleryRow]]
) -> dict[str, list[ShownRow]]:
    """Write the pictures and plans of rows by title."""
    found = {}
    for title, several in rows.items():
        stem = _slug(title.split(",")[0])
        found[title] = [_shown(pictures, f"{stem}_{i:02d}", row) for i, row in enumerate(several)]
    return found


def _shown(pictures: PictureFiles, stem: str, row: GalleryRow) -> ShownRow:
    stages = []
    for place, (stage, picture) in enumerate(row.pictures.items()):
        image = _opened(picture)
        link = _write(pictures, f"{stem}_{place}_{_slug(stage)}", image) if image else None
        found = difference(row.targets, row.reads[stage], language=row.language)
        stages.append(Shown(stage, link, image.size if image else (1, 1), found))
    if row.plan is None:
        return ShownRow(row, tuple(stages), None)
    path, link = pictures.take(f"{stem}_plan.svg")
    path.write_text(row.plan, encoding="utf-8")
    return ShownRow(row, tuple(stages), link)


def _opened(picture: Picture) -> Image.Image | None:
    """The picture, at most `LONGEST_PX` long; None for a file that is missing or no picture."""
    try:
        if isinstance(picture, Path):
            with Image.open(picture) as file:
                image = file.convert("RGB")
        else:
            image = Image.fromarray(picture if isinstance(picture, np.ndarray) else picture())
    except (
        OSError,
        SyntaxError,
        Image.DecompressionBombError,
    ):  # all that Pillow says of bad files
        return None
    image.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
    return image


def _write(pictures: PictureFiles, stem: str, image: Image.Image) -> str:
    small = max(image.size) <= LOSSLESS_PX
    path, link = pictures.take(f"{stem}.{'png' if small else 'jpg'}")
    image.save(path, quality=88)
    return link


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "stage"
