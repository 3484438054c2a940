"""Breaks that come out even: what the automaton lets through is what the check finds no fault with,
and nothing else."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blueprint.breaking import UNEVEN, Breaks, Spans, even, fault, raggedness
from blueprint.check import demerits, findings
from blueprint.codec import decode
from blueprint.copying import automaton
from blueprint.fitting import Fitting, widest_px
from blueprint.grammar import Limits
from blueprint.schema import Blueprint, Box, Text
from tests.blueprint.test_blueprint import walk
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import plan

WORDS = st.lists(st.text("ailmWÖ9", min_size=1, max_size=9), min_size=1, max_size=7)
LONG = "Every morning is a chance to begin again"


def broken(words):
    """Every way to break so many words, each as a tuple of lines."""
    for ends in itertools.product((False, True), repeat=len(words) - 1):
        lines = [words[0]]
        for word, new in zip(words[1:], ends, strict=True):
            if new:
                lines.append(word)
            else:
                lines[-1] += f" {word}"
        yield tuple(lines)


def walks(breaks, words, lines=None):
    """Every way that an automaton lets through."""
    lines = lines or [words[0]]
    done = sum(len(line.split(" ")) for line in lines)
    if done == len(words):
        yield tuple(lines)
        return
    assert breaks.may_join or breaks.may_break, "a dead end"
    for ends in (False, True):
        if breaks.may_break if ends else breaks.may_join:
            after = Breaks.__new__(Breaks)
            after.__dict__.update(breaks.__dict__)
            after.take(ends=ends)
            word = words[done]
            more = [*lines, word] if ends else [*lines[:-1], f"{lines[-1]} {word}"]
            yield from walks(after, words, more)


def caps(string):
    spans = Spans.of(string)
    return {n: spans.most_px(n) for n in range(1, spans.num_words + 1)}


@given(WORDS)
@settings(max_examples=60)
def test_what_is_let_through_is_what_has_no_fault(words):
    through = set(walks(Breaks(" ".join(words), caps(" ".join(words))), words))
    good = {lines for lines in broken(words) if not fault(lines)}
    assert through <= good  # a line may be just long enough beside its own widest
    for lines in good - through:
        spans = Spans.of(" ".join(words))
        assert spans.shortest_px(len(lines), spans.most_px(len(lines)))
    assert set(walks(Breaks(" ".join(words)), words)) == set(broken(words))


@given(WORDS)
@settings(max_examples=60)
def test_the_even_break_is_the_narrowest_and_has_no_fault_but_being_for_nothing(words):
    string = " ".join(words)
    for n in range(1, len(words) + 1):
        lines = even(string, n)
        assert " ".join(lines) == string and len(lines) == n
        widest = max(Spans.of(line).px[0, -1] for line in lines)
        ways = [w for w in broken(words) if len(w) == n]
        least = min(max(Spans.of(line).px[0, -1] for line in way) for way in ways)
        assert widest == Spans.of(string).least_px[n] == least
        assert "would be no wider" in fault(lines) or "wide as" not in fault(lines)


def test_faults_are_named():
    assert fault(("Every morning is", "a chance to", "begin again")) == ""
    assert fault(("Stay", "hungry")) == "" and raggedness(("Stay",)) == 0
    assert "1.6 times as wide" in fault(("Everything must go before", "June"))
    assert "2 lines of the same words would be no wider" in fault(("International", "An", "Art"))
    assert fault(("Prazuphar", "GDRK Make", "Ypd")) == "line 3 is short"
    assert raggedness(("iiii", "ii")) == pytest.approx(0.25, abs=0.01)


def test_a_plan_is_worse_for_its_faults_and_a_little_for_its_raggedness():
    def score(*lines):
        box = Box(0, 0, 1000, 120 * len(lines))
        page = Blueprint(512, 512, "#fff", (Text("title", lines, box, size_milli=80),))
        return demerits(f'"{" ".join(lines)}"', page), [f.rule for f in findings(page)]

    smooth, rough = score("Stay hungry", "and foolish"), score("Everything", "must go")
    assert smooth[1] == rough[1] == [] and 0 < smooth[0] < rough[0] < 0.3
    bad = score("Everything must go before", "June")
    assert bad[1] == ["breaks"] and bad[0] > 1


@pytest.mark.parametrize("prefer", ["line", "byte:20"])
def test_long_quotes_on_a_fitting_page_break_evenly_and_fit(prefer):
    for seed in range(4):
        grammar = automaton(f'a poster "{LONG}"', Limits((128, 128), 250), min_type_px=10)
        liked = (prefer, "text", "source:verbatim", "style")
        page = decode(walk(grammar, random.Random(seed), prefer=liked, share=0.95))
        at = [getattr(e, "string", "") for e in page.elements].index(LONG)
        text = page.elements[at]
        assert 2 <= len(text.lines) <= 6 and not fault(text.lines)
        assert round(text.size_milli * 128 / 1000) >= 10
        found = [f for f in findings(page) if f.path.startswith(f"elements[{at}]")]
        assert {f.rule for f in found} <= {"contrast", "alignment"}, (text, found)


def test_a_frame_bounds_the_lines_and_their_number():
    page = Fitting((128, 128), min_type_px=10)
    page.start("#fff")
    words = LONG.split(" ")
    for frame in (Box(0, 0, 1000, 300), Box(100, 0, 500, 1000)):
        ways = list(walks(page.breaks(LONG, frame), words))
        _, _, wide, high = frame.pixels(128, 128)
        assert ways
        for lines in ways:
            assert widest_px(lines, "sans", "regular", 10) <= wide
            assert len(lines) * 11 <= high
    nowhere = Box(0, 0, 60, 60)  # no size fits: the words are kept, in any even break
    assert set(walks(page.breaks(LONG, nowhere), words)) == set(
        walks(Breaks(LONG, caps(LONG)), words)
    )


def test_procedural_pages_break_evenly():
    texts = [t for seed in range(150) for t in plan(seed, PageStyle())[1].texts]
    several = [t.lines for t in texts if len(t.lines) > 1]
    assert len(several) > 20
    assert sum(bool(fault(lines)) for lines in several) <= 0.06 * len(several)
    assert UNEVEN > 1
