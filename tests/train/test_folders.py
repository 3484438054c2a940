"""Sources: mixtures, and a folder of images: fitted, annotated, every bad record named."""

import collections
import json

import numpy as np
import pytest
from PIL import Image

import pipeline
from blueprint.schema import Box
from train.config import ConfigError, build, load
from train.data.entries import Fitted, SourceError, gather, json_lines
from train.data.formats.folder import read
from train.data.posters.pages import plan
from train.data.sources import DataConfig, Pages, Plans, open_buckets, open_source, open_sources
from train.loop import train


def read_folder(folder, **options):
    return gather(read(folder), folder, **options)


def write(folder, *records):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


@pytest.fixture
def folder(tmp_path):
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[20:40, 50:150] = (255, 0, 0)
    for name in ("a", "b", "c"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


GOOD = {
    "image": "a.png", "caption": 'a red sign "BIG  Sale"',
    "lines": [{"text": "BIG Sale", "box": [50, 20, 100, 20]}, {"text": "x1", "box": [0, 0, 9, 9]}],
}  # fmt: skip


def test_images_are_fitted_and_their_lines_follow(folder):
    write(folder, GOOD)
    entries, bad = read_folder(folder)
    record = Fitted(entries, 128, 128)[0]
    assert not bad and record["prompt"] == GOOD["caption"]
    first, second = record["blueprint"].texts
    assert first.box == Box(250, 350, 500, 100)  # half as wide, under 32 px of white
    assert (first.source, second.source) == ("verbatim", "free")
    left, top, width, height = (round(n) for n in first.box.pixels(128, 128))
    inside = record["pixels"][top + 2 : top + height - 2, left + 2 : left + width - 2]
    assert np.abs(inside.astype(int) - (255, 0, 0)).max() < 12  # Lanczos rings
    assert (record["pixels"][:30] == 255).all() and record["pixels"][34:38, :20].max() < 12


def test_bad_records_are_named_and_counted(folder):
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:60])
    bad = [
        {"image": "broken.png", "caption": "x"},
        {"image": "b.png", "caption": " "},
        {**GOOD, "image": "c.png", "lines": [{"text": "x", "box": [150, 0, 90, 10]}]},
        {**GOOD, "lines": [{"text": "x", "box": [0, 0, 0, 10]}]},
        {"image": "../secret.png", "caption": "x"},
        {"caption": "x"},
    ]
    write(folder, GOOD, *bad)
    with pytest.raises(SourceError) as caught:
        read_folder(folder)
    said = str(caught.value)
    for part in (
        "6 bad records and 1 good", "1 is missing or broken: broken.png (line 2)",
        "1 has no caption: b.png (line 3)", "past the image: c.png (line 4)",
        "lies outside the folder: ../secret.png", "names no image", "config.data.skip_bad",
    ):  # fmt: skip
        assert part in said, said
    entries, counts = read_folder(folder, skip_bad=True)
    assert [e.image.name for e in entries] == ["a.png"] and sum(counts.values()) == 6
    write(folder, *bad)
    with pytest.raises(SourceError, match="0 good ones"):
        read_folder(folder, skip_bad=True)
    with pytest.raises(FileNotFoundError, match=r"no metadata\.jsonl"):
        read_folder(folder / "nowhere")


def test_mixtures(folder):
    write(folder, GOOD)
    mine = {"format": "folder", "path": str(folder), "weight": 3.0}
    data = {
        "page": {"width_px": 128, "height_px": 128}, "num_pages": 5, "batch_size": 2,
        "sources": {"drawn": {"format": "pages"}, "mine": mine},
    }  # fmt: skip
    config = build(DataConfig, data)
    sources = open_sources(config, Plans)
    assert [len(records) for records in sources.records] == [5, 1]
    assert sources.weights == (1.0, 3.0) and not config.is_procedural
    joined = open_source(config, Plans)
    prompts = [joined[i]["prompt"] for i in range(len(joined))]
    assert prompts == [plan(i, config.page)[0] for i in range(5)] + [GOOD["caption"]]
    assert all("pixels" not in joined[i] for i in (0, 5))
    for alone in (build(DataConfig, {**data, "sources": {}}), DataConfig(config.page, 5, 2)):
        assert open_sources(alone, Plans).weights is None and alone.is_procedural
        assert open_source(alone, Plans) == Plans(config.page, 5)


def test_batches_are_of_one_size_each(folder, tmp_path):
    """Images go to the nearest shape, drawn pages to all alike, and a source stays as frequent as
    it was; the tokenizer trains on them."""
    shapes = {"wide": (300, 100), "square": (90, 100), "tall": (60, 130)}
    for name, size in shapes.items():
        Image.new("RGB", size, "#123456").save(folder / f"{name}.png")
    write(folder, *({"image": f"{name}.png", "caption": name} for name in shapes))
    mine = {"format": "folder", "path": str(folder), "weight": 1.0}
    given = {"mine": mine, "drawn": {"format": "pages", "weight": 2.0}}
    overrides = [
        f"--config.data.sources={given}", "--config.data.buckets=((192, 96), (96, 192))",
        "--config.data.batch_size=2", "--config.loop.num_steps=3",
    ]  # fmt: skip
    config = load("configs/tiny/tokenizer.py", overrides)
    run, sizes = pipeline.run(config), collections.Counter()
    for i in range(60):
        pixels = run.dataset[i]["pixels"]
        sizes[pixels.shape[1:3]] += 1
        np.testing.assert_array_equal(pixels, run.dataset[i]["pixels"])
    assert set(sizes) == {(128, 128), (96, 192), (192, 96)}
    assert all(abs(count - 20) <= 1 for count in sizes.values())
    buckets = open_buckets(build(DataConfig, config.data), Pages)
    assert [[len(r) for r in b.records] for b in buckets] == [[16, 1]] * 3
    assert [b.records[1][0]["prompt"] for b in buckets] == ["square", "wide", "tall"]
    for bucket in buckets:
        np.testing.assert_allclose(bucket.weights, (2 / 3, 1 / 3))
    state = train(run.task, run.dataset, run.loop, tmp_path / "run")
    assert int(state.step) == 3 and len({run.dataset[i]["pixels"].shape for i in range(3)}) > 1
    with pytest.raises(ValueError, match="100 x 96 px is under 96 px or no multiple of 8"):
        pipeline.run(load("configs/tiny/tokenizer.py", ["--config.data.buckets=((100, 96),)"]))
    with pytest.raises(ConfigError, match=r"config\.data\.buckets is to be \(\)"):
        decoder = load("configs/tiny/decoder.py")
        with decoder.unlocked():
            decoder.data.buckets = ((96, 192),)
        pipeline.run(decoder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"format": "zip"},
            "data.sources.mine: format 'zip' is not one of pages, tfds, folder, an",
        ),
        ({"path": ""}, "'folder' needs a path"),
        ({"format": "pages"}, "'pages' has no path"),
        ({"weight": 0.0}, "weight 0.0 is not above 0"),
        ({"split": "test"}, "'folder' has no split 'test'"),
        ({"fields": {"image": "i", "caption": "c"}}, "'folder' has no fields"),
        ({"fields": {"imge": "i"}}, "no key 'imge'; did you mean image"),
    ],
)
def test_bad_sources_are_named(changes, message):
    source = {"format": "folder", "path": "somewhere", **changes}
    data = {"page": {}, "num_pages": 5, "batch_size": 2, "sources": {"mine": source}}
    with pytest.raises(ConfigError, match=message):
        build(DataConfig, data, path="data")


def test_a_planner_trains_from_a_folder(folder, tmp_path):
    write(folder, GOOD, {"image": "b.png", "caption": 'sign "b"'}, {"image": "c.png"})
    mine = {"mine": {"format": "folder", "path": str(folder)}}
    overrides = [f"--config.data.sources={mine}", "--config.loop.num_steps=2"]
    config = load("configs/tiny/planner.py", overrides)
    with pytest.raises(SourceError, match=r"1 has no caption: c\.png"):
        pipeline.run(config)
    config = load("configs/tiny/planner.py", [*overrides, "--config.data.skip_bad=True"])
    config.data.batch_size = 2
    run = pipeline.run(config)
    assert int(train(run.task, run.dataset, run.loop, tmp_path / "run").step) == 2


def test_a_line_separator_within_a_string_ends_no_record(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"caption": "one\u2028two"}\n\n{"caption": "three"}\n')
    values = [value for _, value in json_lines(tmp_path / "a.jsonl")]
    assert values == [{"caption": "one\u2028two"}, None, {"caption": "three"}]
