"""The bundle as a library: proofreading touches the boxes of lost words alone."""

import dataclasses
import time

import numpy as np
import pytest

import pipeline
from blueprint.schema import Blueprint, Box, Text
from decoder.conditioning import canonical_page
from evals.least_type import LeastType, keep
from evals.proof import lost_positions, proof_of
from evals.readers import ReadLine
from pipeline.drawing import ahead, draw_all
from sampling.policy import Policy
from tests.bundles import tiny_bundle

TEXTS = (
    Text("title", ("Moon",), Box(50, 50, 500, 160), size_milli=120),
    Text("label", ("Jazz",), Box(50, 600, 500, 160), size_milli=120),
)
PAGE = Blueprint(128, 128, "#fff", TEXTS)


class Reader:
    """Reads the first text always, and the second from its `good`-th reading on."""

    def __init__(self, good):
        self.good, self.count = good, 0

    def __call__(self, pages):
        assert pages.shape[1:] == (128, 128, 3)
        self.count += 1
        strings = ["Moon", "Jazz" if self.count > self.good else "Jagg"]
        boxes = [text.box.pixels(128, 128) for text in TEXTS]
        return [[ReadLine(s, box, 1.0) for s, box in zip(strings, boxes, strict=True)]] * len(pages)


@pytest.fixture(scope="module")
def bundle():
    return pipeline.Bundle(tiny_bundle())


@pytest.mark.parametrize("good", [1, 2, 9])
def test_lost_words_are_printed_again_in_their_boxes_alone(bundle, good):
    codes = bundle.codes([PAGE])[0]
    (best,), (proof,) = bundle.proofread([PAGE], codes[None], Reader(good), max_retries=3)
    (lines,) = Reader(9)(np.zeros((1, 128, 128, 3)))
    masked = lost_positions(PAGE, proof_of(PAGE, lines), (16, 16))
    assert masked[10:12, 1:8].all() and not masked[:9].any()
    np.testing.assert_array_equal(best[~masked], codes[~masked])
    canonical = bundle.tokenizer.probes["encode"](canonical_page(PAGE)[None])[0]
    if good == 1:  # the first reprint is the canonical line
        np.testing.assert_array_equal(best[masked], np.asarray(canonical)[masked])
    elif good == 2:  # the second is sampled
        assert (best[masked] != np.asarray(canonical)[masked]).any()
    else:  # none was better
        np.testing.assert_array_equal(best, codes)
    assert proof.retries == min(good, 3) and proof.num_lost == (good == 9)


def test_a_bundle_plans_for_type_that_its_own_weights_print(bundle, tmp_path, monkeypatch):
    for name in ("tokenizer", "planner", "decoder"):
        (tmp_path / name).symlink_to(tiny_bundle() / name)
    asked = []
    monkeypatch.setattr(pipeline.bundle, "best_plans", lambda *args, **how: asked.append(args[2]))
    told = LeastType(14.0, {**bundle.weights, "decoder": "other"}, "pages-sizes", 9, {}, "")
    for weights in (told.weights, bundle.weights):
        keep(tmp_path, dataclasses.replace(told, weights=weights))
        pipeline.Bundle(tmp_path).plan(["a sign"], num_tries=2)
    assert [plates.legible_px for plates in asked] == [None, 14.0]


def test_int8_prints_nearly_the_same_and_says_that_it_is_others(bundle):
    own = pipeline.load(tiny_bundle(), weights="int8")
    assert own.weights["tokenizer"] == bundle.weights["tokenizer"]
    assert own.weights["decoder"] == f"{bundle.weights['decoder']}+int8"
    near, exact = (each.codes([PAGE]) for each in (own, bundle))
    assert near.shape == exact.shape and (near == exact).mean() > 0.8
    with pytest.raises(ValueError, match="weights 'int2' are not known"):
        pipeline.Bundle(tiny_bundle(), weights="int2")


def test_a_page_of_another_size_is_refused(bundle):
    with pytest.raises(ValueError, match="a page of 128 x 256 px: these models print 128 x 128 px"):
        bundle.codes([Blueprint(128, 256, "#fff", TEXTS)])


def test_only_pages_that_lost_a_word_are_printed_again(bundle):
    codes = bundle.codes([PAGE, PAGE], seed=[1, 2])
    asked = []

    def read(pages):
        asked.append(len(pages))
        good, bad = Reader(0)(pages[:1])[0], Reader(9)(pages[:1])[0]
        return [good, bad] if len(asked) == 1 else [bad]

    best, proofs = bundle.proofread([PAGE, PAGE], codes, read, max_retries=2)
    assert asked == [2, 1, 1] and [p.retries for p in proofs] == [0, 2]
    np.testing.assert_array_equal(best, codes)


def test_a_page_is_the_same_alone_and_among_others(bundle):
    policy = Policy(temperature=1.0)
    together = bundle.codes([PAGE] * 3, seed=[5, 6, 7], policy=policy)
    for i, seed in enumerate((5, 6, 7)):
        np.testing.assert_array_equal(
            bundle.codes([PAGE], seed=seed, policy=policy)[0], together[i]
        )
    assert (together[0] != together[1]).any()


def test_many_pages_are_drawn_as_one_by_one(bundle):
    plans = [(number, PAGE) for number in (4, 2, 9)]
    print_pages = lambda numbers, pages: bundle.codes(pages, seed=list(numbers))  # noqa: E731
    how = {"print_pages": print_pages, "batch_size": 2, "max_retries": 0}
    drawn = list(draw_all(bundle, iter(plans), Reader(0), **how))
    assert [page.number for page in drawn] == [4, 2, 9]
    for page in drawn:
        alone = bundle.pixels(bundle.codes([PAGE], seed=page.number))[0]
        np.testing.assert_array_equal(page.page, alone)
        assert page.proof.num_lost == 0


def test_what_goes_wrong_ahead_is_raised_where_it_is_asked_for():
    def items():
        yield 1
        raise OSError("the disk is full")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(OSError, match="the disk is full"):
        next(found)


def test_a_caller_that_stops_stops_the_work_ahead():
    made = []
    found = ahead(made.append(i) or i for i in range(1000))
    assert next(found) == 0
    found.close()
    count = len(made)
    time.sleep(0.3)
    assert len(made) <= count + 1 < 10
