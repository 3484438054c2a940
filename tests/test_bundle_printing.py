"""A bundle prints: for a request of the same bucket nothing is compiled, whatever its pages, its
seed and its number of pages; what streams ends as what is printed at once; a mesh prints the
same."""

import argparse
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import pipeline
from decoder.conditioning import canonical_page
from scripts import draw
from scripts.pressing import add_flags, is_own, settings
from tests.bundles import tiny_bundle
from tests.compiles import compiled
from train import mesh as meshes
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import plan

PAGES = [plan(seed, PageStyle(128, 128))[1] for seed in range(8)]


@pytest.fixture(scope="module")
def bundle():
    return pipeline.Bundle(tiny_bundle(), press={"num_passes": 4})


@pytest.fixture(scope="module")
def whole(bundle):
    """The codes of three pages, printed at once."""
    return bundle.codes(PAGES[:3])


def test_the_counter_counts():
    twice = jax.jit(lambda x: x + x)
    with compiled() as some:
        twice(jnp.ones(3))
    with compiled() as none:
        twice(jnp.ones(3))
    assert any("lambda" in name for name in some) and none == []


def test_other_pages_of_the_same_bucket_compile_nothing(bundle, whole):
    bundle.pixels(whole)
    with compiled() as programs:
        other = bundle.codes(PAGES[3:7], seed=7)
        again = bundle.codes(PAGES[:3], known=whole, masked=np.ones((3, 16, 16), bool))
        pages = bundle.pixels(other)
        canonical = bundle.copied(PAGES[4:7])
    assert programs == []
    assert other.shape == (4, 16, 16, 12) and pages.shape == (4, 128, 128, 3)
    np.testing.assert_array_equal(again, whole)
    alone = bundle.tokenizer.probes["encode"](np.stack([canonical_page(p) for p in PAGES[4:8]]))
    np.testing.assert_array_equal(canonical, bundle.pixels(np.asarray(alone)[:3]))


def test_rows_that_fill_a_bucket_are_not_seen(bundle, whole):
    four = bundle.codes(PAGES[:4])
    np.testing.assert_array_equal(four[:3], whole)
    assert (four[3] != whole[0]).any()


def test_a_stream_ends_as_the_whole_and_compiles_nothing_again(bundle, whole):
    parts = list(bundle.stream(PAGES[:3], every=3))
    assert [part.num_passes for part in parts] == [3, 4]
    np.testing.assert_array_equal(parts[-1].codes, whole)
    canonical = bundle.tokenizer.ask("encode", np.stack([canonical_page(p) for p in PAGES[:3]]))
    first = parts[0]
    assert 0 < first.known.mean() < 1
    np.testing.assert_array_equal(first.codes[~first.known], canonical[~first.known])
    shown, pages = bundle.preview(first), bundle.pixels(first.codes)
    known = first.known.repeat(8, axis=1).repeat(8, axis=2)
    np.testing.assert_array_equal(shown[known], pages[known])
    assert (shown[~known] >= pages[~known]).all() and (shown[~known] >= 128).all()
    with compiled() as programs:
        for part in bundle.stream(PAGES[3:7], every=3, seed=5):
            bundle.preview(part)
    assert programs == []


def test_the_preview_is_a_moving_picture(bundle, tmp_path):
    codes = draw.watched(bundle, PAGES[0], tmp_path / "a page", seed=0, every=1)
    np.testing.assert_array_equal(codes, bundle.codes(PAGES[:1])[0])
    with Image.open(tmp_path / "a page" / "preview.webp") as moving:
        frames = []
        for i in range(moving.n_frames):
            moving.seek(i)
            frames.append(np.asarray(moving.convert("RGB")))
    assert len(frames) == 4 and all((a != b).any() for a, b in itertools.pairwise(frames))
    np.testing.assert_array_equal(frames[-1], bundle.pixels(codes[None])[0])


def test_buckets_are_powers_of_two_for_each_part_of_the_rows(bundle):
    model, counts = bundle.decoder, (1, 2, 3, 4, 5, 8, 9, 33)
    assert [model.bucket(n) for n in counts] == [1, 2, 4, 4, 8, 8, 16, 64]
    cut = model.on(meshes.build({"data": 3, "tensor": 2}, jax.devices()[:6]))
    assert [cut.bucket(n) for n in counts] == [3, 3, 3, 6, 6, 12, 12, 48]


def test_a_mesh_prints_the_same_pages(bundle, whole):
    cube = {"data": 2, "fsdp": 2, "tensor": 2}
    spread = pipeline.Bundle(tiny_bundle(), mesh=cube, press={"num_passes": 4})
    kernel = spread.decoder.weights["blocks"]["layer"]["mlp"]["up"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 16 // 2, 32 // 2)
    codes = spread.codes(PAGES[:3])
    np.testing.assert_array_equal(codes, whole)
    pages = spread.pixels(codes).astype(int)
    assert np.abs(pages - bundle.pixels(whole)).max() <= 1  # a level, where it is rounded


def test_what_cannot_be_printed_on_is_named(bundle):
    for text in ("data", "data=4,data=2", "data=x"):
        with pytest.raises(ValueError, match=f"mesh '{text}' is not like data=4,tensor=2"):
            meshes.of_flag(text)
    assert meshes.of_flag("data=-1, tensor=2") == {"data": -1, "tensor": 2}
    with pytest.raises(
        ValueError, match="needs 3 devices and there are 8; change --mesh or the num"
    ):
        pipeline.Bundle(tiny_bundle(), mesh={"data": 3})
    with pytest.raises(ValueError, match=r"config\.press: cache 'int4' is not known"):
        pipeline.Bundle(tiny_bundle(), press={"cache": "int4"})
    mesh = meshes.build({"data": 4, "tensor": 2})
    with pytest.raises(ValueError, match="mesh axis tensor of 2 divides no weight of this decoder"):
        bundle.decoder.on(mesh, {"B": "data"})


SAID = "--mesh data=4,tensor=2 --passes 8 --kv-cache int8 --weights bfloat16"


def test_flags_say_how_it_prints():
    flags = argparse.ArgumentParser()
    add_flags(flags)
    none, some = (settings(flags.parse_args(words)) for words in ([], SAID.split()))
    own = ([], ["--mesh", "data=2"], ["--passes", "2"], ["--weights", "int8"])
    assert [is_own(flags.parse_args(words)) for words in own] == [True, True, False, False]
    assert none == {"mesh": None, "press": {}, "weights": "float32"}
    assert some["mesh"] == {"data": 4, "tensor": 2} and some["weights"] == "bfloat16"
    assert some["press"] == {"num_passes": 8, "cache": "int8"}
