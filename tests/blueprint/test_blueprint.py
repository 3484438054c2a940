"""Laws of the language: codec and JSON invert, the grammar admits just the valid, copies are
verbatim."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blueprint import vocab
from blueprint.check import copy_fidelity, findings
from blueprint.codec import CodecError, decode, encode
from blueprint.copying import automaton, fold, quoted
from blueprint.fitting import Fitting, contrast, grounds
from blueprint.formats import from_json, to_dict, to_json
from blueprint.grammar import Grammar, Limits
from blueprint.plan import to_svg
from blueprint.schema import Blueprint, BlueprintError, Box, Picture, Shape, Text
from blueprint.typeset import coverage
from tests.blueprint.strategies import BLUEPRINTS, LINES

SMALL = Blueprint(
    128, 256, "#fe1",
    (
        Shape("pill", Box(100, 500, 300, 200), "#024"),
        Text("button", ("Buy", "now"), Box(120, 520, 250, 160), "serif", "bold", 60, "#fff"),
        Picture(Box(500, 0, 500, 1000), "mug"),
    ),
)  # fmt: skip


@given(BLUEPRINTS)
def test_codec_and_json_are_exact_inverses(blueprint):
    assert decode(encode(blueprint)) == blueprint
    assert from_json(to_json(blueprint)) == blueprint


@given(BLUEPRINTS)
def test_the_grammar_admits_every_blueprint(blueprint):
    ids = encode(blueprint)
    grammar = Grammar(Limits(max_ids=len(ids) + 8))
    for i in ids:
        assert grammar.allowed()[i], vocab.name(i)
        grammar.advance(i)
    assert grammar.finished


def walk(grammar, rng, *, prefer=(), share=0.5):
    ids = []
    while not grammar.finished:
        options = [i for i, allowed in enumerate(grammar.allowed()) if allowed]
        assert options, "a dead end"
        liked = [i for i in options if vocab.name(i) in prefer]
        ids.append(rng.choice(liked if liked and rng.random() < share else options))
        grammar.advance(ids[-1])
    return ids


@given(st.lists(LINES.filter(lambda s: '"' not in s), max_size=4), st.integers(0, 10**6))
def test_every_walk_under_a_prompt_ends_valid_with_its_quotes_verbatim(strings, seed):
    prompt = "a page " + " and ".join(f'"{s}"' for s in strings)
    assert quoted(prompt) == tuple(map(fold, strings))
    max_ids = 30 + sum(15 + len(s.encode()) for s in strings) + seed % 90
    grammar = automaton(prompt, Limits((128, 128), max_ids))
    ids = walk(grammar, random.Random(seed), prefer=("end", "text", "style", "source:verbatim"))
    assert len(ids) <= max_ids
    blueprint = decode(ids)
    assert (blueprint.width_px, blueprint.height_px) == (128, 128)
    assert copy_fidelity(prompt, blueprint) == 1.0
    verbatim = [t.string for t in blueprint.texts if t.source == "verbatim"]
    assert verbatim == list(quoted(prompt))


def test_walks_without_a_prompt_are_valid():
    for seed in range(40):
        ids = walk(Grammar(Limits(max_ids=200)), random.Random(seed), prefer=("end", "style"))
        assert encode(decode(ids)) == ids


@given(st.integers(0, 10**6))
def test_walks_on_a_fitting_page_have_no_findings(seed):
    prompt = 'a page with "Grand Opening" and "K9"'
    grammar = automaton(prompt, Limits((128, 160), 120), min_type_px=10)
    blueprint = decode(walk(grammar, random.Random(seed), prefer=("end", "text", "style")))
    full = any(t.size_milli * 160 / 1000 > 24 for t in blueprint.texts)
    for finding in findings(blueprint):
        if finding.rule == "contrast":  # no ink would have done
            i = int(finding.path.split("[")[1].split("]")[0])
            box = blueprint.elements[i].box
            num_lines = len(blueprint.elements[i].lines)
            below = blueprint.elements[:i]
            under = grounds(blueprint.background, below, box, num_lines=num_lines)
            assert all(min(contrast(ink, g) for g in under) < 4.5 for ink in ("#000", "#fff"))
        elif finding.rule != "alignment":
            assert full and finding.rule in ("overlap", "type size", "fit"), (finding, blueprint)


def test_a_fitting_page_breaks_long_lines_and_keeps_words_apart():
    prompt = 'a sign "An endlessly long headline" and "Here"'
    grammar = automaton(prompt, Limits((128, 128), 200), min_type_px=12)
    prefer = ("text", "byte:20", "source:verbatim")
    texts = list(decode(walk(grammar, random.Random(4), prefer=prefer, share=1.0)).texts)
    assert len(texts[0].lines) > 1
    page = Fitting((128, 128))
    page.start("#fff")
    page.place(Text("title", ("Wide",), Box(0, 0, 1000, 400)))
    page.place(Shape("rectangle", Box(0, 400, 1000, 600), "#000"))
    extent = page.extent(("Here",), "sans", "regular", 100)
    for covering, first in ((True, 400), (False, 0)):
        tops = page.tops(extent, 0, covering=covering).nonzero()[0]
        assert tops[0] == first and tops[-1] == 1000 - extent.least[1]
    inks = page.inks(Box(100, 500, 500, 200), 1)
    assert inks[15, 15, 15] and not inks[3, 3, 3]
    both = page.inks(Box(100, 300, 500, 200), 2)  # a line on white and one on black
    assert both.any() and not both[15, 15, 15] and not both[0, 0, 0]
    for r, g, b in zip(*both.nonzero(), strict=True):
        ink = f"#{r:x}{g:x}{b:x}"
        assert min(contrast(ink, "#fff"), contrast(ink, "#000")) > 4.4
    assert not page.sizes(("Here",), "sans", "regular")[620:].any()  # higher than what is free


@pytest.mark.parametrize("seed", range(8))
def test_own_texts_are_spelled_from_the_list_and_letters_counted(seed):
    own = ("Shop now", "Choose", "NOTICE")
    limits = Limits((128, 128), 150, max_letters=30, own_texts=own, max_texts=4)
    grammar = automaton('a "K9" and "Big Sale"', limits)
    prefer = ("text", "source:free", "line")
    page = decode(walk(grammar, random.Random(seed), prefer=prefer, share=0.9))
    free = [t.string for t in page.texts if t.source == "free"]
    assert set(free) <= set(own) and len(set(free)) == len(free) <= 2
    letters = sum(len(w) for w in page.words)
    assert letters <= 30 and (free or letters == 9)
    with pytest.raises(ValueError, match="have 1 letters more than the 8 that the decoder takes"):
        automaton('a "K9" and "Big Sale"', Limits((128, 128), 150, max_letters=8))


def test_too_small_a_budget_is_refused():
    with pytest.raises(
        ValueError, match="1 quoted strings need at least 27 ids and the planner has 20"
    ):
        automaton('say "hello"', Limits((64, 64), 20))


def test_small_blueprint_as_ids():
    names = " ".join(vocab.name(i) for i in encode(SMALL))
    assert names == (
        "v1 number:16 number:32 hex:f hex:e hex:1 "
        "shape shape:pill paint:fill hex:0 hex:2 hex:4 "
        "number:100 number:500 number:300 number:200 "
        "text text:button source:verbatim byte:42 byte:75 byte:79 line byte:6e byte:6f byte:77 "
        "style font:serif weight:bold number:60 align:left "
        "number:120 number:520 number:250 number:160 hex:f hex:f hex:f "
        "picture byte:6d byte:75 byte:67 style number:500 number:0 number:500 number:1000 end"
    )
    with pytest.raises(CodecError, match="id 1 is nothing, where number belongs"):
        decode(encode(SMALL)[:1])


@pytest.mark.parametrize(
    ("prompt", "strings"),
    [
        ("Bob's 'Fresh Eggs' sign", ("Fresh Eggs",)),
        ("it says 'Don't panic', twice", ("Don't panic",)),
        ("“Öl & Brot” then «Café»", ("Öl & Brot", "Café")),
        ('title "A  B\n C" and ""', ("A B C",)),
        ("the boys' club isn't open", ()),
        ("\"say 'cheese'\" on top", ("say 'cheese'",)),
        ("‘It’s on’ the house", ("It’s on",)),
    ],
)
def test_quoted(prompt, strings):
    assert quoted(prompt) == strings


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda d: d["elements"][1]["box"].update(width=990), "elements[1].box.width"),
        (lambda d: d["elements"][1].update(colour="red"), "elements[1].colour"),
        (lambda d: d["elements"][1].update(colr="#000"), "elements[1].colr"),
        (lambda d: d["elements"][1]["lines"].append(" x"), "elements[1].lines[2]"),
        (lambda d: d["elements"][1].update(font="gothic"), "elements[1].font"),
        (lambda d: d["elements"][0].pop("box"), "elements[0].box"),
        (lambda d: d["elements"][2].update(type="photo"), "elements[2].type"),
        (lambda d: d.update(width_px=100), "width_px"),
        (lambda d: d.update(version=9), "version"),
        (lambda d: d.update(elements={}), "elements"),
    ],
)
def test_a_broken_blueprint_names_the_field(change, path):
    broken = to_dict(SMALL)
    broken = json.loads(json.dumps(broken))
    change(broken)
    with pytest.raises(BlueprintError) as caught:
        from_json(json.dumps(broken))
    assert caught.value.path == path


def test_check_finds_what_is_wrong():
    assert findings(SMALL) == []
    wide = Text(
        "title", ("An endless headline",), Box(0, 0, 200, 100), size_milli=400, colour="#ec2"
    )
    rules = [f.rule for f in findings(Blueprint(128, 256, "#fe1", (*SMALL.elements, wide, wide)))]
    assert rules == ["fit", "fit", "contrast", "fit", "fit", "contrast", "overlap"]
    assert contrast("#000", "#fff") == pytest.approx(21)
    rows = [Text("label", ("Row",), Box(x, y, 200, 90)) for x, y in ((50, 0), (54, 200), (90, 400))]
    shape = Shape("rectangle", Box(0, 500, 1000, 500), "#fff")
    (found,) = findings(Blueprint(256, 256, "#fff", (*rows, shape)))
    assert (found.rule, found.path) == ("alignment", "elements[1].box.left")
    cover = Shape("rectangle", Box(0, 0, 1000, 80), "#fff")
    covered = findings(Blueprint(256, 256, "#fff", (rows[0], cover)))
    assert [f.rule for f in covered] == ["overlap"]
    outline = Shape("rectangle", Box(0, 0, 1000, 80), "#fff", "outline")
    assert findings(Blueprint(256, 256, "#fff", (rows[0], outline))) == []


def test_the_plan_shows_every_string():
    svg = to_svg(SMALL)
    for string in ("Buy", "now", "picture: mug", "button (verbatim)"):
        assert string in svg


def test_stretched_coverage_fills_its_box():
    text = Text("title", ("Hamburg",), Box(100, 200, 700, 250), size_milli=160, align="center")
    ink = coverage(text, (256, 128))
    columns = ink.max(axis=0).nonzero()[0]
    left, _, width, _ = text.box.pixels(256, 128)
    assert abs(columns[0] - left) < 8 and abs(columns[-1] - (left + width)) < 8
    rows = ink.max(axis=1).nonzero()[0]
    _, top, _, height = text.box.pixels(256, 128)
    assert top - 2 <= rows[0] and rows[-1] <= top + height + 2
