"""An evaluation holds together: stages, losses, groups and controls are of the same words."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from blueprint.check import findings
from evals.attribution import STAGES
from evals.benchmarks import pages
from evals.controls import Control
from evals.evaluation import Told, evaluated, legible_px, with_stages
from evals.metrics.strict import word_counts
from evals.readers import ReadLine
from evals.results import ControlNote, from_json, to_json
from evals.scoring import Reading, score
from evals.sums import case_sums


class Engine:
    @property
    def identity(self):
        return {"engine": "by hand"}


def read(case, *, lost=()):
    """What a reader without fault reads, but for some words."""
    lines = [
        " ".join(word for word in line.split() if word not in lost)
        for text in case.blueprint.texts
        for line in text.lines
    ]
    rows = [ReadLine(s, (0.0, 10.0 * i, 90.0, 9.0), 1.0) for i, s in enumerate(lines) if s]
    return [Reading(tuple(rows), (128, 128), look=lambda: case.pixels)]


@pytest.fixture(scope="module")
def made():
    benchmark = pages.benchmark(num_pages=8)
    cases = benchmark.cases(None)
    small = {w.string for case in cases for w in case.words if w.type_px < 14}
    fragile = {cases[0].words[0].string}
    stages = {
        "typeset": [read(case) for case in cases],
        "reconstructed": [read(case) for case in cases],
        "given_blueprint": [read(case, lost=small) for case in cases],
        "end_to_end": [read(case, lost=small | fragile) for case in cases],
        "copied": [read(case, lost=small) for case in cases],
    }
    blank = [[Reading((), (128, 128), look=lambda: cases[0].pixels)] for _ in cases]
    beside = {"blank": Control(score(benchmark.metrics, cases, blank), len(cases), "nothing")}
    told = Told("by hand", "a command", seed=1, missing=("one",))
    sums = case_sums(benchmark, cases, stages["end_to_end"])
    whole = evaluated(benchmark, cases, sums, beside, Engine(), told=told)
    plans = [case.blueprint for case in cases]
    said = {"copied": "by hand too"}
    return cases, small, with_stages(whole, benchmark, cases, stages, plans, said=said)


def test_every_word_is_lost_once_and_the_stages_say_so(made):
    cases, small, results = made
    words = [word.string for case in cases for word in case.words]
    num_small = sum(word in small for word in words)
    assert 0 < num_small < len(words)
    total = results.attribution.total
    assert sum(total.values()) == len(words)
    assert total["decoder"] == num_small and total["reader"] == total["tokenizer"] == 0
    accuracy = {name: row["exact_word_accuracy"].value for name, row in results.stages.items()}
    assert list(accuracy) == list(STAGES)
    assert accuracy["typeset"] == accuracy["reconstructed"] == 1
    assert accuracy["given_blueprint"] == pytest.approx(1 - num_small / len(words))
    assert accuracy["end_to_end"] == results.metrics["exact_word_accuracy"].value
    assert total["read"] == pytest.approx(accuracy["end_to_end"] * len(words))
    assert results.controls["blank"]["exact_word_accuracy"].value == 0
    assert results.control_notes == {
        "blank": ControlNote("nothing", len(cases)), "copied": ControlNote("by hand too", 8),
    }  # fmt: skip
    assert results.controls["copied"]["exact_word_accuracy"].value == accuracy["given_blueprint"]


def test_every_picture_is_measured_once_by_each_metric():
    benchmark = pages.benchmark(num_pages=3)
    cases = benchmark.cases(None)
    measured = Counter()

    def counting(metric):
        def measure(case, reading):
            measured[metric.name, id(reading)] += 1
            return metric.measure(case, reading)

        return dataclasses.replace(metric, measure=measure)

    benchmark = dataclasses.replace(benchmark, metrics=tuple(map(counting, benchmark.metrics)))
    stages = {stage: [read(case) for case in cases] for stage in (*STAGES, "copied")}
    told = Told("by hand", "a command")
    sums = case_sums(benchmark, cases, stages["end_to_end"])
    whole = evaluated(benchmark, cases, sums, {}, Engine(), told=told)
    plans = [case.blueprint for case in cases]
    results = with_stages(whole, benchmark, cases, stages, plans, said={"copied": "so"})
    assert len(measured) == len(benchmark.metrics) * 5 * 3 and set(measured.values()) == {1}
    assert results.groups and results.stages["end_to_end"]["word_f1"].value == 1


def test_groups_have_every_case_and_their_words(made):
    cases, small, results = made
    lost = small | {cases[0].words[0].string}
    assert {"domain", "words", "font"} <= set(results.groups)
    for values in results.groups.values():
        assert sum(group.num_cases for group in values.values()) == len(cases)
    for name in ("poster", "mockup", "shop"):
        chosen = [i for i, case in enumerate(cases) if case.domain == name]
        counts = [word_counts(cases[i], *read(cases[i], lost=lost)) for i in chosen]
        hits, wanted, *_ = np.sum(counts, axis=0)
        group = results.groups["domain"][name]
        assert group.metrics["exact_word_accuracy"].value == pytest.approx(hits / wanted)


def test_a_measured_floor_becomes_a_finding(made):
    cases, _, results = made
    floor = legible_px(results)
    assert floor == 14 == results.type_floors_px["given_blueprint"]
    told = [findings(case.blueprint, legible_px=floor) for case in cases]
    assert sum(finding.rule == "legibility" for page in told for finding in page) > 0
    unknown = dataclasses.replace(results, type_floors_px={"typeset": 6.0})
    assert legible_px(unknown) is None


def test_results_come_back_from_json(made):
    results = made[2]
    assert results.seed == 1 and results.missing == ("one",) and results.num_pictures == 8
    assert to_json(from_json(to_json(results))) == to_json(results)
    assert results.plans["max_iou"].value == pytest.approx(1)
