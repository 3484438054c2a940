"""Runs side by side: what differs is told, and what does not compare is refused."""

import dataclasses
import re

import pytest

from evals import report
from evals.comparison import ComparisonError, caveats, compare, delta, named
from evals.rendering import number
from evals.scoring import Score
from tests.bundles import run_here
from tests.evals.samples import NAN, Page, foreign, made, measured, numbers_of, words_of

HITS = [1, 3, 5, 7, 9, 5]  # of the ten words of each page


def test_runs_stand_side_by_side_with_their_differences():
    runs = [made(), made("wide", first=300), foreign(run="other")]
    page = Page(compare(runs))
    whole = numbers_of(runs[0]) | numbers_of(runs[1]) | numbers_of(runs[2])
    beyond = {  # groups are compared by the headline, stages and controls too
        number(v) for run in runs for rows in (run.controls, run.stages) for r in rows.values()
        for v in dataclasses.astuple(r["extra_text"])
    } | {
        number(v) for run in runs for group in run.groups["domain"].values()
        for v in dataclasses.astuple(group.metrics["extra_text"])
    } | {f"{g.num_cases:,}" for run in runs for g in run.groups["domain"].values()}  # fmt: skip
    by = runs[0].attribution.by["domain"].values()
    beyond |= {f"{n:,}" for counts in by for n in counts.values()}
    assert whole - beyond - words_of(page) == set()
    assert "+0.299 better, intervals apart" in page.text
    assert "+0.299 worse, intervals apart" in page.text  # of extra_text, where less is better
    assert page.text.count("equal") >= 2 and all(run.run in page.text for run in runs)


def test_a_difference_says_which_is_better_and_whether_it_is_one():
    one, other = Score(0.5, 0.4, 0.6), Score(0.55, 0.45, 0.65)
    known = [
        (one, other, False, None, "+0.050 better, intervals overlap", False),
        (other, one, True, None, "−0.050 better, intervals overlap", False),
        (one, Score(0.3, 0.2, 0.39), False, None, "−0.200 worse, intervals apart", True),
        (one, Score(0.3, NAN, NAN), False, None, "−0.200 worse", False),
        (one, one, False, None, "equal", False),
        (one, Score(NAN, NAN, NAN), False, None, "", False),
        (one, other, True, (0.01, 0.09), "+0.050 worse, paired +0.010 to +0.090: differs", True),
        (other, one, False, (-0.09, -0.01), "−0.050 worse, paired −0.090 to −0.010: differs", True),
        (
            one,
            other,
            False,
            (-0.01, 0.1),
            "+0.050 better, paired −0.010 to +0.100: may be ch",
            False,
        ),
        (one, other, False, (NAN, NAN), "+0.050 better, intervals overlap", False),
    ]
    for first, second, lower, ends, said, clear in known:
        change = second.value - first.value
        pair = Score(change, *ends) if ends else None
        found = delta(first, second, lower_is_better=lower, paired=pair)
        assert found.said.startswith(said) and found.clear is clear
        assert bool(found.said) == bool(said)


def test_prompts_are_paired_and_runs_that_cannot_be_are_named():
    (first, a), (better, b) = measured("first", HITS), measured("better", [n + 1 for n in HITS])
    (fewer, c), bare = measured("fewer", HITS[1:]), dataclasses.replace(first, run="bare")
    sums = {"first": a, "better": b, "fewer": c, "bare": None}
    page = Page(compare([first, better, fewer, bare], sums))
    assert page.text.count("+0.100 better, paired +0.100 to +0.100: differs") == 3  # plot, table x2
    assert "fewer is not compared prompt by prompt: it was scored on other cases." in page.text
    assert "bare is not compared prompt by prompt: bare has no cases.jsonl" in page.text
    assert "better is not compared" not in page.text
    assert "intervals overlap" in page.text and "drawn again for both runs" in page.text
    alone = Page(compare([first, better]))
    assert "+0.100 better, intervals overlap" in alone.text and "paired +" not in alone.text
    assert "better is not compared prompt by prompt: first has no cases.jsonl" in alone.text


def test_runs_that_do_not_compare_are_refused_or_marked():
    first = made()
    refused = [
        ({"benchmark": "longtext"}, "b was scored on longtext and demo on pages: compare runs of"),
        ({"reader": {"engine": "tesseract"}}, "different readers (detector: det 00ff, None; en"),
        ({"headline": "extra_text"}, "b leads with extra_text and demo with exact_words"),
        ({"run": "demo"}, "two runs are called 'demo'"),
    ]
    for change, message in refused:
        with pytest.raises(ComparisonError, match=re.escape(message)):
            compare([first, dataclasses.replace(first, **{"run": "b", **change})])
    with pytest.raises(ComparisonError, match="two runs at least"):
        compare([first])
    unlike = dataclasses.replace(first, run="b", num_cases=9, seed=8, versions={"jax": "0.11"})
    said = caveats([first, unlike])
    assert said == [
        "The runs have different numbers of prompts: 1234, 9.",
        "The runs have different seeds: 7, 8.",
        "The runs have different versions of jax: 0.10.2, 0.11.",
    ]
    page = Page(compare([first, unlike]))
    assert "Not made alike." in page.text and all(sentence in page.text for sentence in said)
    assert caveats([first, first]) == [] and "Not made" not in compare([first, made("c")])


def test_a_person_makes_the_page_from_files(tmp_path):
    paths = [tmp_path / name / "scores.json" for name in "ab"]
    for path, hits in zip(paths, (HITS, [n + 1 for n in HITS]), strict=True):
        results, sums = measured("run", hits)
        report.write(path.parent, results, [], sums)
    assert [run.run for run in named(paths)] == [str(path.parent) for path in paths]
    out = tmp_path / "pages" / "both.html"
    assert str(out) in run_here("side_by_side", *paths, out)
    text = Page(out.read_text()).text
    assert "2 runs side by side" in text and "paired +0.100 to +0.100: differs" in text
    assert "the page to write, which ends in .html" in run_here("side_by_side", *paths, code=1)
    missing = (paths[0], tmp_path / "c.json", out)
    assert "there is no" in run_here("side_by_side", *missing, code=1)
