"""Any data set becomes a code cache, and decoders train from caches alone, mixed as told."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import pipeline
from tests.bundles import ROOT, finish, start, tiny_bundle
from tests.train.coding_toys import contents
from train import config as configs
from train.config import ConfigError
from train.data.codes import ContractError, open_cache
from train.data.encoding import encode


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The cache of a folder of twelve images, made by two processes; the images are gone."""
    folder, out = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("codes")
    rng, lines = np.random.default_rng(0), []
    for n in range(12):
        picture = rng.integers(0, 256, (4, 3, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
        Image.fromarray(picture).save(folder / f"{n}.png")
        text = {"text": f"N{n}", "box": [10, 20, 40, 20]}
        lines.append({"image": f"{n}.png", "caption": f'photo "N{n}"', "lines": [text]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"mine": {"format": "folder", "path": str(folder)}}
    told = (
        "--tokenizer", tiny_bundle() / "tokenizer", "--out", out, "--shards", 3,
        "--config", ROOT / "configs/tiny/tokenizer.py", f"--config.data.sources={source}",
    )  # fmt: skip
    both = [start("encode", *told, "--num-processes", 2, "--process-index", k) for k in (0, 1)]
    said = [finish(process) for process in both]
    assert any(f"{out}: 12 records in 3 shards; of 8 that were read back" in s for s in said)
    assert all("12 records in 3" in s or "shards of other processes are missing" in s for s in said)
    data = configs.load(told[7], told[8:]).data
    tokenizer = pipeline.load_model(told[1])
    alone = tmp_path_factory.mktemp("alone")
    encode(pipeline.encoding(tokenizer, data, alone, num_shards=3))
    assert contents(alone) == contents(out)
    shutil.rmtree(folder)
    return out


def decoder(*codes, **data):
    """The run of the tiny decoder over these caches."""
    config = configs.load(ROOT / "configs/tiny/decoder.py")
    config.data.update(codes=tuple(map(str, codes)), tokenizer="", **data)
    return pipeline.run(config)


def test_a_folder_is_encoded_with_its_captions_and_lines(photos):
    cache = open_cache(photos)
    assert cache.header["checked"]["codes_equal"] == 1.0
    assert [r["prompt"] for r in cache] == [f'photo "N{n}"' for n in range(12)]
    assert [r["blueprint"].words for r in cache] == [(f"N{n}",) for n in range(12)]
    assert all(r["codes"].shape == r["glyph_codes"].shape == (16, 16, 12) for r in cache)


def test_caches_are_mixed_as_told_and_told_apart(photos):
    pages = tiny_bundle() / "codes"
    known = {record["codes"].tobytes() for record in open_cache(photos)}

    def share(run):
        return np.mean([c.tobytes() in known for i in range(7) for c in run.dataset[i]["codes"]])

    by_size = decoder(pages, photos, num_pages=28)
    assert share(by_size) == pytest.approx(12 / 28, abs=0.04)
    mostly = decoder(pages, photos, num_pages=28, code_weights=(1.0, 3.0))
    assert share(mostly) == pytest.approx(0.75, abs=0.04)
    assert by_size.data["caches"]["1"]["data"]["sources"]["mine"] and mostly.data == by_size.data
    assert decoder(photos, pages, num_pages=28).data != by_size.data


def test_what_does_not_fit_a_cache_is_named(photos, tmp_path):
    cases = [
        (lambda: decoder(photos), r"config\.data\.num_pages is 16, but .* has 12"),
        (lambda: decoder(), r"config\.data\.codes is to be a tuple of code caches"),
        (
            lambda: decoder(photos, num_pages=12, page={"width_px": 256, "height_px": 128}),
            r"config\.data\.page \(height, width\) is \(128, 256\), but .* has \(128, 128\)",
        ),
        (lambda: decoder(photos, num_pages=12, code_weights=(1.0, 2.0)), "give each source"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ConfigError, match=r"config\.model\.num_codes is 48, but .* has 12"):
        config = configs.load(ROOT / "configs/demo/decoder.py")
        config.data.codes = (str(photos),)
        pipeline.run(config)
    (tmp_path / "cache.json").write_text((photos / "cache.json").read_text())
    with pytest.raises(RuntimeError, match=r"codes-00000-of-00003.array_record is missing"):
        decoder(tmp_path, num_pages=12)


def test_another_tokenizers_cache_is_not_gone_on_with(photos, tmp_path):
    for path in photos.iterdir():
        (tmp_path / path.name).write_text(path.name) if path.suffix != ".json" else None
    header = json.loads((photos / "cache.json").read_text())
    header["contract"]["weights"] = "others"
    (tmp_path / "cache.json").write_text(json.dumps(header))
    tokenizer = pipeline.load_model(tiny_bundle() / "tokenizer")
    data = configs.load(ROOT / "configs/tiny/tokenizer.py").data
    with pytest.raises(ContractError, match=r"contract\.weights: 'others' there"):
        encode(pipeline.encoding(tokenizer, data, tmp_path))
