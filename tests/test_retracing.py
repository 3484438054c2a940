"""A request of the same bucket compiles nothing, whatever its pages, its seed and its number of
pages; and what streams ends as what is printed at once."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import pipeline
from decoder.conditioning import canonical_page
from scripts import draw
from tests.bundles import tiny_bundle
from tests.compiles import compiled
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import plan
from train.model import Model

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
    sizes = [bundle.decoder.bucket(n) for n in (1, 2, 3, 4, 5, 8, 9, 33)]
    assert sizes == [1, 2, 4, 4, 8, 8, 16, 64]
    assert isinstance(bundle.decoder, Model)
