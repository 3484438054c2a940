"""Results come back from JSON as they were; what is none is refused."""

import dataclasses
import json
import math
import re

import pytest

from evals.results import (
    LegibilityBin,
    MetricScore,
    ResultsError,
    flat,
    from_json,
    to_json,
    versions,
)
from tests.evals.samples import NAN, foreign, made


def test_results_come_back_from_json_exactly():
    for results in (made(), foreign()):
        assert from_json(to_json(results)) == results
    bare = dataclasses.replace(made(), plans={"fit": MetricScore(0.5, NAN, NAN)})
    text = to_json(bare)
    assert json.loads(text)["plans"]["fit"]["low"] is None and json.loads(text)["schema"] == 1
    back = from_json(text).plans["fit"]
    assert back.value == 0.5 and math.isnan(back.low) and math.isnan(back.high)
    assert to_json(from_json(text)) == text
    older = json.loads(text)
    del older["control_notes"]  # the first files of this schema have none
    assert from_json(json.dumps(older)).control_notes == {}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"schema": 2}, "schema 2 of these scores is not known here, 1 is"),
        ({"seed": "7"}, "seed: '7' is not a whole number"),
        ({"seed": True}, "seed: True is not a whole number"),
        ({"plan": {}}, "plan is no field; did you mean plans"),
        ({"missing": "a"}, "missing: 'a' is not a list"),
        ({"metrics": {"exact_words": {"value": 1}}}, "metrics.exact_words.low is missing"),
        ({"headline": "other"}, "the headline 'other' is none of the metrics exact_words, ex"),
        ({"stages": {"typeset": {"x": {"value": 1, "low": 1, "high": 1}}}}, "x of a control, st"),
        ({"control_notes": {"x": {"said": "", "num_cases": 1, "problems": []}}}, "notes of x, wh"),
        ({"control_notes": {"blank": {"said": ""}}}, "control_notes.blank.num_cases is missing"),
        ({"attribution": {"total": {"read": 1}, "by": {"d": {"a": {"read": 2}}}}}, "word twice"),
    ],
)
def test_what_is_no_results_file_is_refused_in_a_sentence(change, message):
    with pytest.raises(ResultsError, match=re.escape(message)):
        from_json(json.dumps({**json.loads(to_json(made())), **change}))


def test_numbers_that_cannot_be_told_are_refused():
    with pytest.raises(ResultsError, match="this is not JSON"):
        from_json("{")
    with pytest.raises(ResultsError, match="schema None of these scores"):
        from_json("[]")
    with pytest.raises(ResultsError, match="infinite number"):
        to_json(dataclasses.replace(made(), floors_px={"typeset": math.inf}))
    for px in ((0, 4), (4, 4), (4, math.inf), (NAN, 4)):
        with pytest.raises(ResultsError, match="cannot be drawn"):
            LegibilityBin(px, 1.0, 1.0, 1.0, 1)


def test_scalars_are_flat_and_finite():
    scalars = flat(dataclasses.replace(made(), plans={"fit": MetricScore(NAN, NAN, NAN)}))
    results = made()
    assert scalars["exact_words"] == 0.001
    assert (
        scalars["stages/end_to_end/extra_text"] == results.stages["end_to_end"]["extra_text"].value
    )
    assert scalars["controls/blank/exact_words"] == results.controls["blank"]["exact_words"].value
    assert (
        scalars["groups/domain/shop"]
        == results.groups["domain"]["shop"].metrics["exact_words"].value
    )
    assert scalars["attribution/read"] == 1015 / 5065 and scalars["floors_px/typeset"] == 4.44
    assert "plans/fit" not in scalars and all(map(math.isfinite, scalars.values()))


def test_versions_name_what_scores_depend_on():
    assert {"jax", "rapidocr", "numpy"} <= set(versions())
