"""Runs are told apart prompt by prompt: on hand-worked sums, and only of the same prompts."""

import dataclasses

import numpy as np
import pytest

from evals.benchmarks import pages
from evals.metrics.strict import STRICT
from evals.results import ResultsError
from evals.scoring import Case
from evals.sums import FILE, UnpairedError, case_sums, changes, from_jsonl, load, to_jsonl
from evals.wordpage import perfect
from tests.evals.samples import measured

HITS = [1, 3, 5, 7, 9, 5]  # of the ten words of each page


def paired(first, other, **changed):
    (a, a_sums), (b, b_sums) = first, other
    return changes((a, b), (a_sums, b_sums), STRICT, **changed)


def test_what_each_prompt_gains_is_known_though_the_runs_own_intervals_overlap():
    first, other = measured("first", HITS), measured("other", [n + 1 for n in HITS])
    one, two = first[0].metrics["word_f1"], other[0].metrics["word_f1"]
    assert (one.value, two.value) == pytest.approx((0.5, 0.6))
    assert one.high > two.low + 0.1  # far from apart
    found = paired(first, other)
    assert set(found) == {"word_f1", "exact_word_accuracy"}
    for change in found.values():  # one word of ten more, whichever prompts are drawn
        assert (change.value, change.low, change.high) == pytest.approx((0.1, 0.1, 0.1))
    back = paired(other, first)["word_f1"]
    assert (back.value, back.low, back.high) == pytest.approx((-0.1, -0.1, -0.1))


def test_gains_and_losses_that_nearly_cancel_may_be_chance():
    other = measured("other", [n + step for n, step in zip(HITS, [1, -1] * 3, strict=True)])
    change = paired(measured("first", HITS), other)["word_f1"]
    assert change.value == 0 and change.low < 0 < change.high
    # Six draws of +-0.1 and their mean: 0.1 * sqrt(1 / 6) is one standard error.
    assert change.high - change.low == pytest.approx(2 * 1.96 * 0.1 / 6**0.5, rel=0.2)
    more = measured("more", [n + 2 * (i == 0) for i, n in enumerate(HITS)])
    change = paired(measured("first", HITS), more)["word_f1"]
    assert change.value == pytest.approx(2 / 60) and change.low == 0 < change.high


def test_cases_are_laid_side_by_side_by_name():
    first, (other, sums) = measured("first", HITS), measured("other", [n + 1 for n in HITS])
    turned = dataclasses.replace(
        sums, names=sums.names[::-1], asked=sums.asked[::-1],
        rows={name: rows[::-1] for name, rows in sums.rows.items()},
    )  # fmt: skip
    change = paired(first, (other, turned))["word_f1"]
    assert (change.low, change.high) == pytest.approx((0.1, 0.1))


def test_what_is_not_of_the_same_prompts_is_not_paired():
    first, (other, sums) = measured("first", HITS), measured("other", HITS[::-1])
    asked = dataclasses.replace(sums, asked=("0", *sums.asked[1:]))
    renamed = dataclasses.replace(sums, names=("x", *sums.names[1:]))
    stale = measured("stale", [n + 1 for n in HITS])[1]
    unknown = dataclasses.replace(sums, rows={"ned": sums.rows["word_f1"]})
    for wrong, message in (
        (None, f"other has no {FILE} beside its scores"),
        (renamed, "it was scored on other cases"),
        (measured("other", HITS[1:])[1], "is not of its scores"),
        (asked, r"1 of its cases ask for something else \(page_0\)"),
        (stale, r"is not of its scores \((word_f1|exact_word_accuracy) differs\)"),
        (unknown, "how word_f1 of other is made of sums is not known"),
    ):
        with pytest.raises(UnpairedError, match=message):
            paired(first, (other, wrong))
    with pytest.raises(UnpairedError, match="how word_f1 of first is made of sums is not known"):
        changes((first[0], other), (first[1], sums), STRICT[2:])


def test_sums_come_back_from_their_file(tmp_path):
    benchmark = pages.benchmark(num_pages=2)
    cases = benchmark.cases(None)
    readings = [[perfect(case.targets)] * 2 for case in cases]
    sums = case_sums(benchmark, cases, readings)
    text = to_jsonl(sums)
    assert text.count("\n") == 2 and len(text) < 2 * 1000
    assert '"pictures":2' in text and '"exact_word_accuracy":[' in text
    back = from_jsonl(text)
    assert (back.names, back.asked, back.num_pictures) == (sums.names, sums.asked, (2, 2))
    assert list(back.rows) == [metric.name for metric in benchmark.metrics]
    for metric, rows in sums.rows.items():
        np.testing.assert_array_equal(back.rows[metric], rows)
    assert load(tmp_path / FILE) is None
    for wrong in ("{", "", "[]\n", text[:-20], text.replace("name", "called")):
        (tmp_path / FILE).write_text(wrong)
        with pytest.raises(ResultsError, match=r"cases\.jsonl: these are no sums of cases"):
            load(tmp_path / FILE)


def test_what_a_case_asks_for_has_its_own_mark():
    quad = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    case = Case("a", "a cup", ("Tea",), (quad,))
    others = [{"prompt": "a mug"}, {"targets": ("tea",)}, {"quads": ()}, {"language": "zh"}]
    others.append({"blueprint": pages.cases(1)[0].blueprint})
    cases = [case, dataclasses.replace(case, groups={"domain": "shop"})]
    cases += [dataclasses.replace(case, **change) for change in others]
    made = pages.benchmark()
    marks = case_sums(made, cases, [[perfect(["Tea"])]] * len(cases)).asked
    assert marks[0] == marks[1] and len(set(marks)) == 1 + len(others)
