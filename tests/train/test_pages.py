"""Procedural pages: pure, legible by construction, apart in their splits, and of every kind they
promise."""

import itertools

import numpy as np
import pytest

from blueprint.breaking import fault
from blueprint.check import copy_fidelity, findings
from blueprint.codec import decode, encode
from blueprint.copying import quoted
from train.data.posters import words
from train.data.posters.canvas import PageStyle, choose_families
from train.data.posters.pages import page, plan
from train.data.sources import Pages

SEEDS = range(150)
STYLES = [
    PageStyle(),
    PageStyle(split="heldout", quoted="all"),
    PageStyle(256, 320),
    PageStyle(512, 512),
    PageStyle(long_quotes=0.5),
]


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_every_page_is_sound(style):
    ragged = []
    for seed in SEEDS:
        prompt, blueprint = plan(seed, style)
        assert (blueprint.width_px, blueprint.height_px) == (style.width_px, style.height_px)
        assert len(list(blueprint.texts)) >= 2
        assert decode(encode(blueprint)) == blueprint
        assert copy_fidelity(prompt, blueprint) == 1.0
        found = findings(blueprint)
        ragged += [f for f in found if f.rule == "breaks"]
        assert [f for f in found if f.rule != "breaks"] == [], seed
        verbatim = tuple(t.string for t in blueprint.texts if t.source == "verbatim")
        assert quoted(prompt) == verbatim
        if style.quoted == "all":
            assert all(t.source == "verbatim" for t in blueprint.texts)
    # beside long quotes, lines of other texts are filled one after another
    assert len(ragged) <= (1 if style.long_quotes else 0)


def test_long_quotes_stand_in_several_even_lines_and_leave_other_pages_alone():
    style = PageStyle(long_quotes=0.5)
    texts = [t for seed in SEEDS for t in plan(seed, style)[1].texts if t.string.count(" ") >= 4]
    assert len(texts) >= 10 and all(len(t.lines) >= 3 for t in texts)
    assert {t.kind for t in texts} == {"title", "body"}
    assert not any(fault(t.lines) for t in texts)
    assert all(round(t.size_milli * 128 / 1000) >= style.min_type_px for t in texts)
    plain = [plan(seed, PageStyle()) for seed in SEEDS]
    assert not any(t.string.count(" ") >= 4 for _, page in plain for t in page.texts)
    with pytest.raises(ValueError, match="long_quotes 2 is not a share"):
        PageStyle(long_quotes=2)


def test_pages_are_pure_and_random_access():
    style = PageStyle(split="heldout")
    first, again = page(11, style), page(11, style)
    assert (first.prompt, first.blueprint) == (again.prompt, again.blueprint)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    record = Pages(style, 20)[11]
    np.testing.assert_array_equal(record["pixels"], first.pixels)
    assert (first.prompt, first.blueprint) == plan(11, style)


def test_text_leaves_ink_in_its_box():
    for seed in range(60):
        made = page(seed, PageStyle())
        for text in made.blueprint.texts:
            left, top, width, height = (round(n) for n in text.box.pixels(128, 128))
            inside = made.pixels[top : top + height, left : left + width].reshape(-1, 3)
            ink = np.array([17 * int(digit, 16) for digit in text.colour[1:]])
            near = np.abs(inside.astype(int) - ink).max(axis=1) < 60
            assert near.mean() > 0.03, (seed, text)


def test_all_domains_and_many_fonts():
    pages = [page(seed, PageStyle(split="heldout")) for seed in range(60)]
    assert {p.domain for p in pages} == {"poster", "mockup", "shop"}
    assert {t.font for p in pages for t in p.blueprint.texts} >= {"sans", "serif", "rounded"}


def test_splits_are_apart():
    def drawn(split):
        rng = __import__("random").Random(3)
        return {words.invented(rng, split) for _ in range(400)}

    train, heldout = drawn("train"), drawn("heldout")
    assert not train & heldout and len(train) > 300 and len(heldout) > 200
    fonts = {
        split: {f.name for s in range(80) for f in choose_families(s, split).values()}
        for split in ("train", "heldout")
    }
    assert fonts["heldout"] - fonts["train"] == {"Hanken Grotesk", "Caladea", "Intuitive"}


def test_at_least_half_of_the_words_are_invented():
    style = PageStyle(split="heldout", quoted="all")
    names, common = words._real()
    known = {*names, *common, *(w.capitalize() for w in common)}
    said = list(itertools.chain.from_iterable(plan(s, style)[1].words for s in SEEDS))
    letters = [w for w in said if any(c.isalpha() for c in w)]
    assert sum(w not in known for w in letters) / len(letters) > 0.5
    assert any(c.isdigit() for w in said for c in w)


def test_bad_styles_are_named():
    with pytest.raises(ValueError, match="split 'test'"):
        PageStyle(split="test")
    with pytest.raises(ValueError, match="100 x 128 px"):
        PageStyle(width_px=100)
