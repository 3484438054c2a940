"""The least legible type lies beside the models that it was measured with, and counts for no
others."""

import dataclasses
import json
import logging

import pytest

from evals.evaluation import LEGIBLE_STAGES
from evals.least_type import FILE, LeastTypeError, keep, known_px, measured
from tests.evals.samples import made

WEIGHTS = {"tokenizer": "aa", "decoder": "bb"}


def results(px=14.0, **changes):
    floors = dict(zip(LEGIBLE_STAGES, (6.0, 12.0, px), strict=True))
    return dataclasses.replace(made(benchmark="pages-sizes"), type_floors_px=floors, **changes)


def test_what_was_measured_is_known_to_the_same_weights_alone(tmp_path, caplog):
    assert known_px(tmp_path, WEIGHTS) is None
    found = measured(results(), WEIGHTS)
    assert (found.legible_px, found.benchmark, found.num_cases) == (14, "pages-sizes", 1234)
    assert "14 px" in keep(tmp_path, found)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    with caplog.at_level(logging.WARNING, "absl"):
        assert known_px(tmp_path, WEIGHTS) == 14
        assert not caplog.records
        assert known_px(tmp_path, {**WEIGHTS, "decoder": "cc"}) is None
    assert "measured with another decoder: its 14 px are not used" in caplog.text


def test_benchmarks_without_small_type_and_floors_of_no_stage_measure_nothing():
    assert measured(dataclasses.replace(results(), benchmark="pages"), WEIGHTS) is None
    unread = dataclasses.replace(results(), type_floors_px={"typeset": 6.0})
    assert measured(unread, WEIGHTS) is None


def test_fewer_cases_do_not_replace_more_unless_the_weights_changed(tmp_path):
    keep(tmp_path, measured(results(), WEIGHTS))
    few = results(px=9.0, num_cases=3)
    assert "stays as it is: 1234 cases gave 14 px" in keep(tmp_path, measured(few, WEIGHTS))
    assert known_px(tmp_path, WEIGHTS) == 14
    trained_on = {**WEIGHTS, "decoder": "cc"}
    keep(tmp_path, measured(few, trained_on))
    assert known_px(tmp_path, trained_on) == 12


def test_a_file_that_cannot_be_understood_is_named(tmp_path):
    keep(tmp_path, measured(results(), WEIGHTS))
    sound = json.loads((tmp_path / FILE).read_text())
    for broken in ("{", "[1]", json.dumps({**sound, "legible_px": 0}), json.dumps({"px": 9})):
        (tmp_path / FILE).write_text(broken)
        with pytest.raises(LeastTypeError, match=rf"{FILE} .*: remove it$"):
            known_px(tmp_path, WEIGHTS)


def test_a_folder_that_cannot_be_written_is_said_and_no_error(tmp_path):
    said = keep(tmp_path / "nowhere", measured(results(), WEIGHTS))
    assert "14 px is the least type" in said and "nowhere" in said
