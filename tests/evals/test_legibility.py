"""Accuracy over type size by hand, floors where they were put, and doubt that shrinks with
pages."""

import numpy as np
import pytest

from evals.facets import Word
from evals.legibility import curve, floor_px

SIZES = (6, 8, 10, 12, 16, 24)


def pages_of(*, num_pages, reader, decoder, seed=0):
    """Pages of one word of each size; a stage reads a word of a size with some chance."""
    rng = np.random.default_rng(seed)
    words = [[Word(f"w{s}", {}, s, s / 2) for s in SIZES] for _ in range(num_pages)]
    typeset = [[w.string for w in page if rng.random() < reader(w.type_px)] for page in words]
    given = [[w.string for w in page if rng.random() < decoder(w.type_px)] for page in words]
    return words, {"typeset": typeset, "given_blueprint": given}


def test_a_curve_by_hand():
    words = [
        [Word("a", {}, 8, 4.0), Word("b", {}, 8, 4.0), Word("c", {}, 12, 6.0)],
        [Word("d", {}, 8, 4.0), Word("e", {}, 13, 6.5), Word("f", {})],
    ]
    reads = {"typeset": [["a", "c"], ["d", "e"]], "given_blueprint": [["a", "b"], ["e"]]}
    small, large = curve(words, reads, edges=(1, 10, 20))
    assert (small.low_px, small.high_px, small.num_words, small.num_read) == (1, 10, 3, 2)
    assert small.accuracy["typeset"].value == pytest.approx(2 / 3)
    assert small.accuracy["given_blueprint"].value == pytest.approx(2 / 3)
    assert small.kept["given_blueprint"].value == 0.5  # of a and d it keeps a
    assert "typeset" not in small.kept
    assert large.num_words == 2 and large.kept["given_blueprint"].value == 0.5
    by_width = curve(words, reads, axis="char_px")
    assert [(b.low_px, b.high_px, b.num_words) for b in by_width] == [(4, 4.5, 3), (6, 7, 2)]


def test_intervals_hold_the_value_and_shrink_with_pages():
    spans = []
    for num_pages in (20, 320):
        words, reads = pages_of(num_pages=num_pages, reader=lambda s: 0.9, decoder=lambda s: 0.5)
        for b in curve(words, reads):
            for score in (*b.accuracy.values(), *b.kept.values()):
                assert score.low <= score.value <= score.high
        spans.append(np.mean([b.kept["given_blueprint"].high - b.kept["given_blueprint"].low
                              for b in curve(words, reads)]))  # fmt: skip
    assert spans[1] < 0.4 * spans[0]


def test_the_floor_is_where_it_was_put():
    kinds = {"reader": lambda s: 1.0 if s >= 8 else 0.6, "decoder": lambda s: float(s >= 12)}
    words, reads = pages_of(num_pages=40, **kinds)
    bins = curve(words, reads)
    assert floor_px(bins, "typeset") == 8
    assert floor_px(bins, "given_blueprint") == 12
    reads["given_blueprint"] = [[] for _ in words]
    assert floor_px(curve(words, reads), "given_blueprint") is None
    reads["given_blueprint"] = reads["typeset"]
    assert floor_px(curve(words, reads), "given_blueprint") == 6  # no floor within these sizes


def test_a_bin_of_one_word_neither_makes_nor_breaks_a_floor():
    words, reads = pages_of(num_pages=40, reader=lambda s: 1.0, decoder=lambda s: float(s >= 12))
    words.append([Word("unlucky", {}, 40, 20.0), Word("lucky", {}, 7, 3.5)])
    reads["typeset"].append(["unlucky", "lucky"])
    reads["given_blueprint"].append(["lucky"])
    assert floor_px(curve(words, reads), "given_blueprint") == 12


def test_the_curve_needs_the_reader_and_has_every_word():
    words, reads = pages_of(num_pages=4, reader=lambda s: 1.0, decoder=lambda s: 1.0)
    with pytest.raises(ValueError, match="needs what was read of the typeset pages"):
        curve(words, {"given_blueprint": reads["given_blueprint"]})
    words[0].append(Word("w99", {}, 99, 50.0))
    sizes, widths = curve(words, reads), curve(words, reads, axis="char_px")
    assert sizes[-1].low_px == 40 and np.isinf(sizes[-1].high_px) and sizes[-1].num_words == 1
    for bins in (sizes, widths):
        assert sum(b.num_words for b in bins) == 4 * len(SIZES) + 1
