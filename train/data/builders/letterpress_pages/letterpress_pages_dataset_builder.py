"""Our procedural pages as a TFDS data set: painted once, checked at every read.

    python scripts/prepare.py --config all_128 --data-dir data

writes it as ArrayRecord and needs no TensorFlow. So does, where TensorFlow and Beam are installed
(TFDS's own command line imports both, whatever it is asked for),

    PYTHONPATH=. tfds build train/data/builders/letterpress_pages --config all_128 --data_dir data

and with `--beam_pipeline_options runner=DirectRunner` Beam's workers paint the pages.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from blueprint.formats import to_dict
from blueprint.schema import Blueprint
from blueprint.typeset import bands
from train.data.formats.prepared import checksum
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import domain_of, page
from train.data.sources import heldout

LICENSE = "Apache-2.0"
_DOMAINS = {"all": "", "posters": "poster", "mockups": "mockup", "shops": "shop"}
_SIZES_PX = (128, 256)


@dataclasses.dataclass(kw_only=True)
class PagesConfig(tfds.core.BuilderConfig):
    """Square pages of `size_px`, of one domain of `train/data/posters/` or of all of them ("")."""

    domain: str = ""
    size_px: int = 128
    num_train: int = 100_000
    num_heldout: int = 2_000

    def style(self, split: str) -> PageStyle:
        """The pages of a split."""
        pages = PageStyle(self.size_px, self.size_px)
        return heldout(pages) if split == "heldout" else pages

    def seeds(self, split: str) -> Iterator[int]:
        """The seeds of a split's pages: the first ones of the domain."""
        count = self.num_heldout if split == "heldout" else self.num_train
        seeds = (s for s in itertools.count() if self.domain in ("", domain_of(s, split)))
        return itertools.islice(seeds, count)


def example_of(seed: int, style: PageStyle) -> tuple[int, dict[str, Any]]:
    """(key, the features) of a seed's page."""
    made = page(seed, style)
    blueprint = json.dumps(to_dict(made.blueprint), ensure_ascii=False, separators=(",", ":"))
    return seed, {
        "image": Image.fromarray(made.pixels),  # of an array TFDS would have TensorFlow make a PNG
        "prompt": made.prompt,
        "blueprint": blueprint,
        "lines": _lines(made.blueprint),
        "seed": seed,
        "license": LICENSE,
        "checksum": checksum(made.pixels, made.prompt, blueprint),
    }


def _lines(blueprint: Blueprint) -> list[dict[str, Any]]:
    page_px = blueprint.width_px, blueprint.height_px
    found = []
    for text in blueprint.texts:
        for string, (left, top, width, height) in zip(
            text.lines, bands(text, page_px), strict=True
        ):
            x, y = left / page_px[0], top / page_px[1]
            right, foot = x + width / page_px[0], y + height / page_px[1]
            box = tfds.features.BBox(ymin=y, xmin=x, ymax=min(foot, 1.0), xmax=min(right, 1.0))
            found.append({"text": string, "box": box})
    return found


class Builder(tfds.core.GeneratorBasedBuilder):
    """Pages of posters, UI mockups and e-commerce graphics with all that is known of them."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Blueprints of version 1."}  # noqa: RUF012  # as TFDS has it
    BUILDER_CONFIGS = [  # noqa: RUF012
        PagesConfig(name=f"{name}_{size_px}", domain=domain, size_px=size_px)
        for name, domain in _DOMAINS.items()
        for size_px in _SIZES_PX
    ]

    def __init__(self, *, file_format: Any = "array_record", **rest: Any) -> None:
        super().__init__(file_format=file_format, **rest)
        self._on_beam, self._most = False, None

    @property
    def _pages(self) -> PagesConfig:
        config = self.builder_config
        assert isinstance(config, PagesConfig)
        return config

    def _info(self) -> tfds.core.DatasetInfo:
        size_px = self._pages.size_px
        text, features = tfds.features.Text, tfds.features
        line = {"text": text(doc="one line"), "box": features.BBoxFeature(doc="its band")}
        return self.dataset_info_from_configs(
            features=features.FeaturesDict(
                {
                    "image": features.Image(shape=(size_px, size_px, 3), encoding_format="png"),
                    "prompt": text(doc="what a person would have typed"),
                    "blueprint": text(doc="the whole page as JSON, see blueprint/schema.py"),
                    "lines": features.Sequence(line),
                    "seed": features.Scalar(dtype=np.int64),
                    "license": text(doc="an SPDX identifier"),
                    "checksum": text(doc="SHA-256 of image, prompt and blueprint"),
                }
            ),
            license=LICENSE,
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        self._on_beam = bool(download_config.beam_options or download_config.beam_runner)
        self._most = download_config.max_examples_per_split
        super()._download_and_prepare(dl_manager, download_config)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in ("train", "heldout")}

    def _generate_examples(self, split: str) -> Any:
        style = self._pages.style(split)
        seeds = itertools.islice(self._pages.seeds(split), self._most)
        if not self._on_beam:
            return (example_of(seed, style) for seed in seeds)
        beam: Any = tfds.core.lazy_imports.apache_beam
        return beam.Create(list(seeds)) | beam.Reshuffle() | beam.Map(example_of, style=style)
