"""The benchmark is what its version says, to the bit; its groups are true; and it ranks what was
typeset above what was not."""

import dataclasses
import hashlib

import numpy as np
import pytest

from blueprint.check import copy_fidelity, findings
from evals.attribution import attribution
from evals.benchmarks import open_benchmark, pages
from evals.readers import RapidReader
from evals.scoring import Reading, by_group, score
from evals.wordpage import perfect
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import page

PINNED = {  # pages 0, 6, 12 and 18: prompts and blueprints, then pixels
    "core": ("a4490c305fbcd1c3", "355a94284c7c29ae"),
    "dense": ("98cb1cf900984131", "d87f5f3599693c34"),
    "sizes": ("2d1768bb18ff5917", "ad912064843862d7"),
}
HOW = "pages changed: raise VERSION in evals/benchmarks/pages.py, old scores do not compare"


@pytest.mark.parametrize("split", pages.SPLITS)
def test_the_pages_of_a_version_never_change(split):
    some = pages.cases(19, split=split)[::6]
    pixels = hashlib.sha256(b"".join(case.pixels.tobytes() for case in some)).hexdigest()[:16]
    assert pages.VERSION == 1
    assert (pages.fingerprint(some), pixels) == PINNED[split], HOW
    assert pages.cases(7, split=split)[::6] == some[:2]


def test_core_is_the_pages_that_scores_were_always_of():
    style = PageStyle(split="heldout", quoted="all")
    for i, case in enumerate(pages.cases(3, width_px=128, height_px=128)):
        made = page(1_000_000 + i, style)
        assert (case.prompt, case.blueprint, case.domain) == (
            made.prompt, made.blueprint, made.domain,
        )  # fmt: skip
        np.testing.assert_array_equal(case.pixels, made.pixels)


def test_cases_say_what_stands_where():
    for case in pages.cases(14, split="dense", width_px=256, height_px=256):
        texts = list(case.blueprint.texts)
        assert case.targets == tuple(t.string for t in texts) and len(case.quads) == len(texts)
        assert copy_fidelity(case.prompt, case.blueprint) == 1.0
        for text, quad in zip(texts, case.quads, strict=True):
            (left, top), (right, _), (_, foot), _ = quad
            assert (left, top) == (text.box.left / 1000, text.box.top / 1000)
            assert right - left == pytest.approx(text.box.width / 1000)
            assert foot - top == pytest.approx(text.box.height / 1000)
        assert [w.string for w in case.words] == list(case.blueprint.words)


def test_groups_and_words_agree():
    cases = pages.cases(28, split="dense")
    for case in cases:
        assert case.groups["type_px"] == min(w.facets["type_px"] for w in case.words)
        assert case.groups["lines"] == max(w.facets["lines"] for w in case.words)
        assert {w.facets["words"] for w in case.words} == {case.groups["words"]}
        for facet, many in (("fonts", "both"), ("strings", "both"), ("font", "several")):
            values = {w.facets[facet] for w in case.words}
            assert case.groups[facet] == (many if len(values) > 1 else min(values))
        if case.style.split == "train":
            assert case.groups["fonts"] == case.groups["strings"] == "training"
    groups = by_group(cases)
    assert set(groups["domain"]) == {"poster", "mockup", "shop"}
    assert list(groups["words"]) == [
        "001-003", "004-007", "008-015", "016-031", "032-063", "064-127", "128+",
    ]  # fmt: skip
    assert {len(where) for where in groups["words"].values()} == {4}
    assert {"heldout", "training"} <= set(groups["fonts"])


def test_pages_keep_the_printers_rules_but_for_the_sizes_that_are_there_to_break_one():
    small = 0
    for split in pages.SPLITS:
        for case in pages.cases(32, split=split):
            rules = {f.rule for f in findings(case.blueprint)}
            allowed = {"type size"} if split == "sizes" else set()
            assert rules <= allowed, (case.name, rules)
            small += rules == {"type size"}
    assert small >= 3


def test_sizes_cover_the_range():
    cases = pages.cases(64, split="sizes")
    lines = [[line for t in case.blueprint.texts for line in t.lines] for case in cases]
    assert max(sum(map(len, several)) for several in lines) <= 64
    words = [w for case in cases for w in case.words]
    sizes = {w.type_px for w in words}
    assert set(pages.BODIES_PX) <= sizes and min(sizes) == 6 and max(sizes) > 40
    narrow = min(words, key=lambda w: w.char_px)
    assert narrow.char_px < 4 and narrow.type_px <= 8


def test_names_are_unique_and_bad_calls_are_named():
    cases = [case for split in pages.SPLITS for case in pages.cases(4, split=split)]
    assert len({case.name for case in cases}) == 12
    assert pages.cases(1, split="sizes", width_px=256)[0].name == "sizes-256x128-0000"
    with pytest.raises(ValueError, match="no split 'core2'; it has core, dense, sizes"):
        pages.cases(1, split="core2")
    with pytest.raises(ValueError, match="pages makes its own cases"):
        pages.benchmark().cases("somewhere")


def test_a_split_is_opened_by_its_name_and_drawn_in_another_size():
    for split in pages.SPLITS:
        name = "pages" if split == "core" else f"pages-{split}"
        opened = open_benchmark(name)
        assert opened.name == name and opened.redrawn and not opened.where
        other = opened.redrawn(num_pages=2, page_px=(256, 192))
        assert other.name == name and other.headline == opened.headline and other.redrawn
        drawn = other.cases(None)
        assert pages.fingerprint(drawn) == pages.fingerprint(
            pages.cases(2, split=split, width_px=256, height_px=192)
        )
    as_listed = open_benchmark("pages").cases(None)
    assert [case.name for case in as_listed] == [case.name for case in pages.cases()]


def test_typeset_ranks_far_above_blank_and_shuffled():
    made = pages.benchmark("dense", num_pages=5, page_px=(256, 256))
    cases, reader = made.cases(None), RapidReader(num_threads=1)
    typeset = [[Reading(tuple(reader.read(case.pixels)), (256, 256))] for case in cases]
    shuffled = [*typeset[1:], typeset[0]]
    blank = [[dataclasses.replace(typeset[0][0], lines=())]] * len(cases)
    scores = {
        name: score(made.metrics[:2], cases, readings)
        for name, readings in (("typeset", typeset), ("shuffled", shuffled), ("blank", blank))
    }
    worth = {name: row[made.headline].value for name, row in scores.items()}
    assert worth["typeset"] > 0.85 and worth["shuffled"] < 0.15 and worth["blank"] == 0
    reads = {"typeset": [[*several[0].strings] for several in typeset]}
    total = attribution([case.words for case in cases], reads)["total"]
    assert total["read"] / sum(total.values()) == pytest.approx(
        scores["typeset"]["exact_word_accuracy"].value
    )


@pytest.mark.parametrize("split", pages.SPLITS)
def test_a_page_of_all_words_is_worth_little_though_it_says_each_one(split):
    made = pages.benchmark(split, page_px=(128, 128))
    cases = made.cases(None)
    words = sorted({word.string for case in cases for word in case.words})
    assert len(words) > 300
    found = score(made.metrics[:3], cases, [[perfect(words)]] * len(cases), num_resamples=1)
    assert list(found)[:2] == [made.headline, "exact_word_accuracy"]
    assert found["exact_word_accuracy"].value > 0.95 and found[made.headline].value < 0.05
    right = score(made.metrics[:1], cases, [[perfect(c.targets)] for c in cases], num_resamples=1)
    assert right[made.headline].value == 1
