"""Prepared TFDS data sets in ArrayRecord, read at random and without TensorFlow.

Our own (`train/data/builders/`) are known by their features: the blueprint is whole, and the
checksum of every record is compared as it is read. Any other one is mapped by `FieldsConfig`, whose
values are paths into the features, such as `objects.bbox`; lists on the way are gone through.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from blueprint.copying import fold
from blueprint.formats import from_json
from blueprint.schema import Element
from train.data.entries import (
    BadRecord,
    Record,
    four_numbers,
    line_of,
    page_pixels,
    placed,
    refit,
    report,
    said,
    sourced,
)

_OWN = {"image", "prompt", "blueprint", "checksum", "seed"}
_Four = tuple[float, float, float, float]
_LTRB = lambda a, b, c, d: (a, b, c - a, d - b)  # noqa: E731
_YXYX = lambda a, b, c, d: (b, a, d - b, c - a)  # noqa: E731
_LTWH = lambda a, b, c, d: (a, b, c, d)  # noqa: E731
_YXHW = lambda a, b, c, d: (b, a, d, c)  # noqa: E731
_ORDERS: dict[str, Callable[..., _Four]] = {
    "ltwh": _LTWH, "ltrb": _LTRB, "yxyx": _YXYX, "yxhw": _YXHW,
}  # fmt: skip
BOX_FORMATS = tuple(f"{order}_{unit}" for order in _ORDERS for unit in ("px", "unit"))


class DamagedRecord(RuntimeError):
    """A record with a broken image, or one of ours whose checksum is not that of what it holds."""


@dataclasses.dataclass(frozen=True)
class FieldsConfig:
    """Where a foreign data set keeps its image, its caption (of several the first) and, if it has
    them, its lines of text.

    `box_format` says what the four numbers of a `line_box` are: the order of left, top, width,
    height, right, bottom (`ltwh`, `ltrb`, `yxyx`, `yxhw`), then pixels (`_px`) or shares of the
    image (`_unit`). TFDS's own BBoxFeature is `yxyx_unit`.
    """

    image: str = ""
    caption: str = ""
    line_text: str = ""
    line_box: str = ""
    box_format: str = "yxyx_unit"

    def __post_init__(self) -> None:
        if self.box_format not in BOX_FORMATS:
            raise ValueError(
                f"box_format {self.box_format!r} is not one of {', '.join(BOX_FORMATS)}"
            )
        if bool(self.line_text) != bool(self.line_box):
            raise ValueError("fields.line_text and fields.line_box go together: set both or none")
        if bool(self.image) != bool(self.caption) or (self.line_text and not self.image):
            raise ValueError("fields needs image and caption: set both, or no field for our own")


def checksum(pixels: np.ndarray, prompt: str, blueprint: str) -> str:
    """SHA-256 of a page's pixels (uint8 [Y X 3]), its size, its prompt and its blueprint's JSON."""
    parts = (repr(pixels.shape).encode(), pixels.tobytes(), prompt.encode(), blueprint.encode())
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()


def _at(value: Any, path: Sequence[str]) -> Any:
    for i, key in enumerate(path):
        if isinstance(value, Mapping):
            value = value[key]
        else:
            return [_at(item, path[i:]) for item in value]
    return value


def _string(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


class Prepared:
    """Records `{prompt, blueprint, pixels}` of a split of `<name>[/<config>]/<version>`, fitted
    into pages of one size; without pixels unless `painted`.

    Every process opens the files for itself, so workers can be sent this. Raises
    `FileNotFoundError` when nothing is prepared there, `ValueError` naming the features or splits
    there are, and for a record, when it is read, `DamagedRecord`.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        fields: FieldsConfig,
        page_px: tuple[int, int],
        *,
        painted: bool = True,
    ) -> None:
        self.folder, self.split, self.fields = Path(folder), split, fields
        self.page_px, self.painted = page_px, painted
        self._examples: Any = None
        self.kept: Sequence[int] = range(len(self._open()))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_examples": None}

    @property
    def is_ours(self) -> bool:
        """Whether the blueprint is read whole, because no field says where its parts lie."""
        return not self.fields.image

    def _open(self) -> Any:
        if self._examples is not None:
            return self._examples
        if not (self.folder / "dataset_info.json").is_file():
            raise FileNotFoundError(
                f"{self.folder} holds no prepared TFDS data set (no dataset_info.json); "
                "prepare it with tfds build"
            )
        import tensorflow_datasets as tfds  # takes two seconds, which other sources need not wait

        builder: Any = tfds.builder_from_directory(str(self.folder))
        self._require(builder)
        raw: Any = tfds.decode.SkipDecoding()
        for key in reversed(self._image):
            raw = {key: raw}
        self._examples = builder.as_data_source(split=self.split, decoders=raw)
        return self._examples

    @property
    def _image(self) -> list[str]:
        return (self.fields.image or "image").split(".")

    def _require(self, builder: Any) -> None:
        """Raise `ValueError` unless the data set can be read as the fields say."""
        info, fields = builder.info, self.fields
        if info.file_format.value != "array_record":
            raise ValueError(
                f"{self.folder} is in {info.file_format.value}, which has no random access; "
                "convert it with tfds convert_format --out_file_format array_record"
            )
        names = {part.split("[")[0].strip() for part in self.split.split("+")}
        if not names <= set(info.splits):
            raise ValueError(
                f"{self.folder} has no split {self.split!r}, but {', '.join(info.splits)}"
            )
        known = tuple(_paths(info.features))
        if self.is_ours:
            if not set(known) >= _OWN:
                raise ValueError(
                    f"{self.folder} is no data set of ours: set the source's fields (image, "
                    f"caption, ...) to its features {', '.join(known)}"
                )
            return
        for name in (fields.image, fields.caption, fields.line_text, fields.line_box):
            if name and name not in known:
                raise ValueError(f"{self.folder} has no feature {name!r}, but {', '.join(known)}")

    def __len__(self) -> int:
        return len(self.kept)

    def native_px(self) -> list[tuple[int, int]]:
        """(width, height) of every image, from their headers."""
        examples = self._open()
        bytes_of = lambda number: _at(examples[number], self._image)  # noqa: E731
        return [Image.open(io.BytesIO(bytes_of(number))).size for number in self.kept]

    def at_size(self, page_px: tuple[int, int], indices: Sequence[int]) -> Prepared:
        """Some of the records, on pages of another size."""
        other = copy.copy(self)
        other.page_px, other.kept = page_px, [self.kept[i] for i in indices]
        return other

    def _page(
        self, example: Mapping[str, Any], image: Image.Image
    ) -> tuple[str, str, tuple[Element, ...]]:
        """(caption, background, elements in thousandths of the image)."""
        if self.is_ours:
            blueprint = from_json(_string(example["blueprint"]))
            return _string(example["prompt"]), blueprint.background, blueprint.elements
        fields, lines = self.fields, []
        caption = _at(example, fields.caption.split("."))
        if isinstance(caption, list | np.ndarray):
            caption = caption[0] if len(caption) else ""
        caption = said(_string(caption))
        if fields.line_text:
            texts = _at(example, fields.line_text.split("."))
            boxes = _at(example, fields.line_box.split("."))
            if len(texts) != len(boxes):
                raise BadRecord(f"has {len(texts)} lines and {len(boxes)} boxes")
            order, unit = fields.box_format.split("_")
            for text, box in zip(map(_string, texts), boxes, strict=True):
                numbers = four_numbers(box)
                if not isinstance(text, str) or not fold(text):
                    raise BadRecord("has a line without text")
                if numbers is None:
                    raise BadRecord("has a box that is not four numbers")
                left, top, width, height = _ORDERS[order](*numbers)
                across, down = image.size if unit == "unit" else (1, 1)
                box_px = left * across, top * down, width * across, height * down
                lines.append(line_of(text, placed(box_px, image.size)))
        return caption, "#fff", sourced(lines, caption)

    def without_bad(self, *, skip_bad: bool) -> dict[str, int]:
        """Look at every record but its pixels, keep the sound ones, and count the others by what
        is wrong; raises `SourceError` for bad ones unless `skip_bad`."""
        if self.is_ours:
            return {}  # a record's checksum is compared when it is read
        kept, bad = [], collections.defaultdict(list)
        for index, example in enumerate(
            tqdm(self._open(), desc="check", unit="record", delay=5, mininterval=5)
        ):
            try:
                try:
                    image = Image.open(io.BytesIO(_at(example, self._image)))
                    image.verify()
                except (OSError, SyntaxError):
                    raise BadRecord("has a broken image") from None
                self._page(example, image)
                kept.append(index)
            except BadRecord as problem:
                bad[str(problem)].append(f"{self.split} record {index}")
        counts = report(bad, len(kept), self.folder, skip_bad=skip_bad)
        self.kept = kept if bad else self.kept
        return counts

    def __getitem__(self, index: int) -> Record:
        number = self.kept[int(index)]
        example = self._open()[number]
        image = self._picture(example, number)
        if self.is_ours:
            self._compare(example, image, number)
        caption, background, elements = self._page(example, image)
        blueprint = refit(image.size, self.page_px, elements, background)
        record = {"prompt": caption, "blueprint": blueprint}
        if not self.painted:
            return record
        return {**record, "pixels": page_pixels(image, self.page_px, background)}

    def _picture(self, example: Mapping[str, Any], number: int) -> Image.Image:
        try:
            image = Image.open(io.BytesIO(_at(example, self._image)))
            if self.painted or self.is_ours:
                image.load()
            return image
        except (OSError, SyntaxError):  # Pillow raises both for damaged files
            raise DamagedRecord(
                f"record {number} of {self.folder} ({self.split}) has a broken image: prepare the "
                "data set anew"
            ) from None

    def _compare(self, example: Mapping[str, Any], image: Image.Image, number: int) -> None:
        texts = (_string(example[key]) for key in ("prompt", "blueprint"))
        if checksum(np.asarray(image), *texts) != _string(example["checksum"]):
            raise DamagedRecord(
                f"record {number} of {self.folder} ({self.split}, seed {example['seed']}) is not "
                "what was written: prepare the data set anew"
            )


def _paths(features: Any, above: str = "") -> list[str]:
    """Every feature's dotted path."""
    inner = getattr(features, "feature", features)  # of a Sequence
    if not hasattr(inner, "items"):
        return [above]
    return [
        path for key, part in inner.items() for path in _paths(part, f"{above}.{key}".lstrip("."))
    ]
