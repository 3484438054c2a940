"""Plans are scored by hand: the best assignment, line counts, rates by rule, and an invalid plan
that counts."""

import dataclasses

import pytest

from blueprint.schema import Blueprint, Box, Picture, Shape, Text
from evals.plans import PlannedPages, max_iou, plan_scores
from evals.scoring import Case

TITLE = Text("title", ("Big Day",), Box(0, 0, 800, 200), size_milli=100)
FIRST = Text("label", ("one",), Box(0, 300, 400, 200), size_milli=100)
SECOND = Text("label", ("two",), Box(500, 300, 400, 200), size_milli=100)
MUG = Picture(Box(0, 600, 400, 400), "mug")
PROMPT = '"Big Day", "one" and "two"'


def page(*elements):
    return Blueprint(128, 128, "#fff", elements)


REFERENCE = page(TITLE, FIRST, SECOND, MUG)


def moved(element, **box):
    return dataclasses.replace(element, box=dataclasses.replace(element.box, **box))


def test_max_iou_is_over_the_best_assignment_within_a_kind():
    assert max_iou(REFERENCE, REFERENCE) == 1.0
    swapped = page(TITLE, moved(FIRST, left=500), moved(SECOND, left=0), MUG)
    assert max_iou(swapped, REFERENCE) == 1.0  # which label says which word is not its business
    half = page(moved(TITLE, left=200, width=800), FIRST, SECOND, MUG)
    assert max_iou(half, REFERENCE) == pytest.approx((600 / 1000 + 3) / 4)
    less = page(TITLE, FIRST, SECOND)
    assert max_iou(less, REFERENCE) == max_iou(REFERENCE, less) == 0.75
    other = page(TITLE, FIRST, SECOND, Shape("heart", MUG.box, "#000"))
    assert max_iou(other, REFERENCE) == pytest.approx(3 / 5)  # a heart is no picture
    assert max_iou(page(), page()) == 1.0 and max_iou(page(), REFERENCE) == 0.0


def test_the_best_assignment_is_not_the_greedy_one():
    wide = [Shape("line", Box(left, 0, 400, 100), "#000") for left in (0, 300)]
    plan = [Shape("line", Box(left, 0, 400, 100), "#000") for left in (200, 500)]
    # to each its left neighbour, 200/600 twice; greedily 200 takes 300 (300/500) and 500 gets none
    assert max_iou(page(*plan), page(*wide)) == pytest.approx(2 * (200 / 600) / 2)


def test_a_perfect_plan_and_an_invalid_one():
    cases = [Case("a", PROMPT, (), blueprint=REFERENCE)] * 2
    best = plan_scores(cases, [REFERENCE, REFERENCE])
    assert {best[n] for n in ("valid", "copy_fidelity", "same_elements", "box_iou", "max_iou",
                              "same_line_counts")} == {1.0}  # fmt: skip
    assert all(best[n] == 0 for n in best if n.startswith("findings"))
    half = plan_scores(cases, [None, REFERENCE])
    assert {half[n] for n in ("valid", "copy_fidelity", "max_iou", "box_iou")} == {0.5}
    assert half["findings"] == 0.0
    none = plan_scores(cases, [None, None])
    assert none["valid"] == none["max_iou"] == 0 and "findings" not in none


def test_findings_are_rates_a_page_by_rule():
    bad = page(
        TITLE, moved(FIRST, top=100), dataclasses.replace(SECOND, colour="#eee", size_milli=40), MUG
    )
    cases = [Case("a", PROMPT, (), blueprint=REFERENCE)] * 2
    found = plan_scores(cases, [bad, REFERENCE])
    assert found["findings_overlap"] == found["findings_contrast"] == 0.5
    assert found["findings_type_size"] == 0.5 and found["findings_alignment"] == 0
    rules = [value for name, value in found.items() if name.startswith("findings_")]
    assert len(rules) == 6 and sum(rules) == found["findings"] == 1.5


def test_lines_are_counted_and_words_that_are_missing_too():
    broken = dataclasses.replace(TITLE, lines=("Big", "Day"))
    found = plan_scores(
        [Case("a", PROMPT, (), blueprint=REFERENCE)], [page(broken, FIRST, SECOND, MUG)]
    )
    assert found["same_line_counts"] == pytest.approx(2 / 3) and found["max_iou"] == 1
    without = plan_scores([Case("a", PROMPT, ())], [page(TITLE, SECOND)])
    assert without["copy_fidelity"] == pytest.approx(1 / 3) and "max_iou" not in without


def test_every_case_has_a_plan():
    with pytest.raises(ValueError, match="1 plans for 2 cases"):
        plan_scores([Case("a", "", ()), Case("b", "", ())], [None])
    with pytest.raises(ValueError, match="0 plans for 0 cases"):
        plan_scores([], [])


def test_a_planner_in_training_is_scored_by_the_same_function():
    records = [{"prompt": PROMPT, "blueprint": REFERENCE}] * 2
    asked = []

    def make(probes, prompts):
        asked.append((probes, tuple(prompts)))
        return [REFERENCE, page(TITLE, FIRST, SECOND)]

    found = PlannedPages(records, make)(7, {"step": len})
    assert asked == [({"step": len}, (PROMPT, PROMPT))]
    cases = [Case(n, PROMPT, (), blueprint=REFERENCE) for n in "ab"]
    assert found.scalars == plan_scores(cases, make({}, []))
    assert found.scalars["max_iou"] == 0.875 and found.scalars["same_elements"] == 0.5
    assert found.pictures["plans"].dtype == "uint8"
