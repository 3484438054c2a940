"""Runs side by side: what differs is told, and what does not compare is refused."""

import dataclasses
import re

import pytest

from evals.comparison import ComparisonError, caveats, compare, delta, named
from evals.rendering import number
from evals.results import to_json
from evals.scoring import Score
from tests.bundles import finish, start
from tests.evals.samples import NAN, Page, foreign, made, numbers_of, words_of


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
    assert delta(one, other, lower_is_better=False) == "+0.050 better, intervals overlap"
    assert delta(other, one, lower_is_better=True) == "−0.050 better, intervals overlap"
    assert delta(one, Score(0.3, 0.2, 0.39), lower_is_better=False).endswith("intervals apart")
    assert delta(one, Score(0.3, NAN, NAN), lower_is_better=False) == "−0.200 worse"
    assert delta(one, one, lower_is_better=False) == "equal"
    assert delta(one, Score(NAN, NAN, NAN), lower_is_better=False) == ""


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
    for path in paths:
        path.parent.mkdir()
        path.write_text(to_json(made()))
    assert [run.run for run in named(paths)] == [str(path.parent) for path in paths]
    out = tmp_path / "pages" / "both.html"
    wrong = start("side_by_side", *paths)
    missing = start("side_by_side", paths[0], tmp_path / "c.json", out)
    assert str(out) in finish(start("side_by_side", *paths, out))
    assert "2 runs side by side" in Page(out.read_text()).text
    assert "the page to write, which ends in .html" in finish(wrong, code=1)
    assert "there is no" in finish(missing, code=1)
