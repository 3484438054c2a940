"""TFDS data sets: foreign ones mapped by their fields, our own recognised and compared with their
checksums, and all of it without TensorFlow."""

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from blueprint.schema import Box
from blueprint.typeset import bands
from train.config import ConfigError, build
from train.data.builders.letterpress_pages import letterpress_pages_dataset_builder as pages_builder
from train.data.entries import BadRecord, SourceError
from train.data.formats.prepared import BOX_FORMATS, DamagedRecord, FieldsConfig, Prepared
from train.data.posters.pages import domain_of, page
from train.data.sources import DataConfig, Pages, Plans, SourceConfig, open_source

ROOT = Path(__file__).resolve().parents[2]
PAGE = {"page": {"width_px": 128, "height_px": 128}, "num_pages": 4, "batch_size": 2}
BOXES = {
    "yxyx_unit": (0.2, 0.25, 0.4, 0.75), "ltrb_unit": (0.25, 0.2, 0.75, 0.4),
    "ltwh_unit": (0.25, 0.2, 0.5, 0.2), "yxhw_unit": (0.2, 0.25, 0.2, 0.5),
    "yxyx_px": (20, 50, 40, 150), "ltrb_px": (50, 20, 150, 40), "ltwh_px": (50, 20, 100, 20),
    "yxhw_px": (20, 50, 20, 100),
}  # fmt: skip


def picture():
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[20:40, 50:150] = (255, 0, 0)
    return Image.fromarray(pixels)


def sign(**changes):
    """A photograph of a red sign, its box in every format."""
    line = {"text": "BIG  Sale", **BOXES, **changes.pop("line", {})}
    return {
        "photo": {"image": picture(), "captions": [{"raw": 'a "BIG Sale"'}]},
        "objects": [line],
    } | changes


class Signs(tfds.core.GeneratorBasedBuilder):
    """Somebody's data set; the first `count` of its examples."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        four = tfds.features.Tensor(shape=(4,), dtype=np.float32)
        line = {"text": tfds.features.Text(), **dict.fromkeys(BOXES, four)}
        photo = {
            "image": tfds.features.Image(),
            "captions": tfds.features.Sequence({"raw": tfds.features.Text()}),
        }
        features = {
            "photo": photo,
            "caption": tfds.features.Text(),
            "objects": tfds.features.Sequence(line),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        broken = sign()
        broken["photo"]["image"] = io.BytesIO(b"\x89PNG no")
        bad = [
            {**sign(), "caption": " "},
            {**sign(line={"ltwh_px": (150, 0, 90, 10)}), "caption": "x"},
            {**sign(line={"text": "\n"}), "caption": "x"}, {**broken, "caption": "x"},
        ]  # fmt: skip
        good = {**sign(), "caption": 'a red "BIG Sale"'}
        return {"good": [(0, good)], "mixed": list(enumerate([good, *bad]))}

    def _generate_examples(self):
        raise NotImplementedError


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    builder = Signs(data_dir=tmp_path_factory.mktemp("signs"), file_format="array_record")
    builder.download_and_prepare()
    return builder.data_path


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    builder = pages_builder.Builder(config="posters_128", data_dir=tmp_path_factory.mktemp("ours"))
    few = tfds.download.DownloadConfig(max_examples_per_split=6)
    builder.download_and_prepare(download_config=few)
    return builder


FIELDS = {"image": "photo.image", "caption": "caption", "line_text": "objects.text"}


def opened(path, split="good", *, skip_bad=False, procedural=Pages, **fields):
    source = {"format": "tfds", "path": str(path), "split": split, "fields": fields}
    data = build(DataConfig, {**PAGE, "sources": {"them": source}, "skip_bad": skip_bad})
    return open_source(data, procedural)


@pytest.mark.parametrize("box_format", BOX_FORMATS)
def test_boxes_of_every_format_come_to_the_same(signs, box_format):
    source = opened(signs, **FIELDS, line_box=f"objects.{box_format}", box_format=box_format)
    record = source[0]
    (text,) = record["blueprint"].texts
    assert text.string == "BIG Sale" and text.source == "verbatim"
    assert text.box == Box(250, 350, 500, 100)  # half as wide, under 32 px of white
    assert record["prompt"] == 'a red "BIG Sale"'
    assert tuple(record["pixels"][0, 0]) == (255, 255, 255)
    left, top, width, height = (round(n) for n in text.box.pixels(128, 128))
    inside = record["pixels"][top + 2 : top + height - 2, left + 2 : left + width - 2]
    assert np.abs(inside.astype(int) - (255, 0, 0)).max() < 12  # Lanczos rings


def test_bad_records_are_named_and_counted(signs):
    boxes = {"line_box": "objects.ltwh_px", "box_format": "ltwh_px"}
    with pytest.raises(SourceError) as caught:
        opened(signs, "mixed", **FIELDS, **boxes)
    said = str(caught.value)
    for part in (
        "4 bad records and 1 good", "1 has no caption: mixed record",
        "1 has a box that reaches past the image: mixed record",
        "1 has a line without text: mixed record", "1 has a broken image: mixed record", "skip_bad",
    ):  # fmt: skip
        assert part in said, said
    source = opened(signs, "mixed", skip_bad=True, **FIELDS, **boxes)
    assert len(source) == 1 and source[0]["prompt"] == 'a red "BIG Sale"'
    inner = opened(signs, image="photo.image", caption="photo.captions.raw")
    assert inner[0]["prompt"] == 'a "BIG Sale"' and not inner[0]["blueprint"].elements
    plans = opened(signs, procedural=Plans, **FIELDS, **boxes)
    assert sorted(plans[0]) == ["blueprint", "prompt"]


def test_what_cannot_be_read_is_named(signs, tmp_path):
    good = {"image": "photo.image", "caption": "caption"}
    with pytest.raises(ValueError, match=r"no feature 'photo\.picture', but .*photo\.image"):
        opened(signs, **{**good, "image": "photo.picture"})
    with pytest.raises(ValueError, match="no split 'test', but"):
        opened(signs, "test", **good)
    with pytest.raises(ValueError, match=r"no data set of ours: set the source's fields.*caption"):
        opened(signs)
    with pytest.raises(FileNotFoundError, match="no prepared TFDS data set"):
        opened(tmp_path, **good)
    info = json.loads((signs / "dataset_info.json").read_text())
    for name in ("dataset_info.json", "features.json"):
        (tmp_path / name).write_text((signs / name).read_text())
    (tmp_path / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="is in tfrecord, which has no random access"):
        opened(tmp_path, **good)
    for fields, message in (
        ({"box_format": "xywh"}, "config.fields: box_format 'xywh' is not one of ltwh_px"),
        ({"image": "a"}, "needs image and caption"),
        ({**good, "line_text": "a"}, "set both or none"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(SourceConfig, {"format": "tfds", "path": "x", "fields": fields})


def test_our_own_are_read_back_exactly(ours):
    for split in ("train", "heldout"):
        style = ours.builder_config.style(split)
        seeds = [s for s in range(99) if domain_of(s, split) == "poster"][:6]
        assert list(ours.builder_config.seeds(split))[:6] == seeds
        made = {drawn.prompt: drawn for drawn in (page(s, style) for s in seeds)}
        source = pickle.loads(pickle.dumps(opened(ours.data_path, split)))
        records = [source[i] for i in range(len(source))]
        assert {r["prompt"] for r in records} == set(made)
        for record in records:
            wanted = made[record["prompt"]]
            assert record["blueprint"] == wanted.blueprint and wanted.domain == "poster"
            np.testing.assert_array_equal(record["pixels"], wanted.pixels)
    example = ours.as_data_source(split="train")[0]
    wanted = page(int(example["seed"]), ours.builder_config.style("train"))
    lines = [band for text in wanted.blueprint.texts for band in bands(text, (128, 128))]
    found = [(x, y, right - x, foot - y) for y, x, foot, right in example["lines"]["box"]]
    np.testing.assert_allclose(128 * np.array(found), lines, atol=1e-3)
    assert example["license"] == b"Apache-2.0"
    assert "Procedural pages" in ours.info.description and "Letterpress" in ours.info.citation


def test_a_changed_record_of_ours_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pages_builder, "checksum", lambda *page: "0" * 64)
    builder = pages_builder.Builder(config="all_128", data_dir=tmp_path)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(max_examples_per_split=1)
    )
    source = opened(builder.data_path, "train")
    with pytest.raises(DamagedRecord, match=r"record 0 of .*\(train, seed 0\)"):
        source[0]


def test_a_broken_image_is_refused_when_it_is_read(signs):
    fields = FieldsConfig(image="photo.image", caption="caption")
    source = Prepared(signs, "mixed", fields, (128, 128))
    broken = 0
    for i in range(5):
        try:
            source[i]
        except DamagedRecord as problem:
            assert f"record {i} of {signs} (mixed) has a broken image" in str(problem)
            broken += 1
        except BadRecord as problem:
            assert str(problem) == "has no caption"
    assert broken == 1


def test_other_sizes_fit(ours):
    source = Prepared(ours.data_path, "train", FieldsConfig(), (256, 128))
    record = source[0]
    assert record["pixels"].shape == (128, 256, 3)
    whole = Prepared(ours.data_path, "train", FieldsConfig(), (128, 128))[0]
    for there, here in zip(whole["blueprint"].texts, record["blueprint"].texts, strict=True):
        assert here.box.left == round(250 + there.box.left / 2)
        assert (here.box.top, here.size_milli) == (there.box.top, there.size_milli)


TRAIN = """
import sys
from pathlib import Path
import pipeline
from train.config import load
from train.loop import train
run = pipeline.run(load("configs/tiny/tokenizer.py", sys.argv[2:]))
state = train(run.task, run.dataset, run.loop, Path(sys.argv[1]))
print(int(state.step), "tensorflow" in sys.modules, "torch" in sys.modules)
import tensorflow
print("tensorflow" in sys.modules)
"""


def test_training_from_prepared_pages_never_imports_tensorflow(tmp_path):
    """With one that could be imported on the path, so that nothing is spared by its absence. Nor is
    PyTorch, which the tests have, and which takes longer to import than all the rest."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}

    def ran(*command, fails=False):
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, text=True, capture_output=True
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    where = ("--config", "all_128", "--data-dir", str(tmp_path), "--max-pages", "4")
    assert "train 4, heldout 4" in ran("scripts/prepare.py", *where)
    assert "is there already" in ran("scripts/prepare.py", *where, fails=True)
    picture().save(tmp_path / "sign.png")
    (tmp_path / "metadata.jsonl").write_text('{"image": "sign.png", "caption": "a red sign"}')
    sources = {
        "ours": {"format": "tfds", "path": str(tmp_path / "letterpress_pages/all_128/1.0.0")},
        "sign": {"format": "folder", "path": str(tmp_path), "weight": 0.5},
    }
    overrides = [f"--config.data.sources={sources}", "--config.loop.num_steps=3"]
    said = ran("-c", TRAIN, str(tmp_path / "run"), *overrides)
    assert said.split()[-4:] == ["3", "False", "False", "True"]
