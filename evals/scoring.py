"""What a benchmark is made of: cases, metrics that are functions of sums, and scores with their
doubt."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from blueprint.schema import Blueprint
from evals.readers import Quad, ReadLine

Statistics = Float[np.ndarray, "... S"]
Sums = Mapping[str, Float[np.ndarray, "P S"]]  # statistics of each prompt, by metric


@dataclasses.dataclass(frozen=True)
class Case:
    """One prompt of a benchmark and what its pictures must say.

    `name` is unique in the benchmark and fit for a file name. `targets` are the strings asked for,
    in reading order; `quads` says where each stands, in shares of the picture's width and height,
    if the benchmark says so. `groups` maps a facet to this case's value, as in
    `{"domain": "poster"}`. `language` is en, where words stand between blanks, or zh, where every
    character is a word. `source` is a picture that the case begins with.
    """

    name: str
    prompt: str
    targets: tuple[str, ...]
    quads: tuple[Quad, ...] = ()
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
    language: str = "en"
    blueprint: Blueprint | None = None
    source: Path | None = None


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read on one picture of `size_px` (width, height): its lines in reading order, and
    in `crops` what was read in each of the case's quads alone, by benchmarks that crop. `look`
    gives the picture itself, uint8 [Y X 3], to metrics of ink."""

    lines: tuple[ReadLine, ...]
    size_px: tuple[int, int]
    crops: tuple[str, ...] = ()
    look: Callable[[], np.ndarray] | None = None

    @property
    def strings(self) -> tuple[str, ...]:
        """The lines' words, without their places."""
        return tuple(line.string for line in self.lines)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score of pictures that is a function of sums.

    `measure` has the statistics [S] of one picture, `value` the score of statistics summed over
    pictures, for any leading axes: what is written so can be resampled, split into groups and
    computed by several processes. `value` of no pictures at all is nan. `source` names the paper
    or evaluator whose definition it is, and where ours differs.
    """

    name: str
    measure: Callable[[Case, Reading], Sequence[float]]
    value: Callable[[Statistics], Float[np.ndarray, ...]]
    source: str
    lower_is_better: bool = False


def share(sums: Statistics) -> Float[np.ndarray, ...]:
    """The first statistic over the second: the `value` of an average; nan where there is
    nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A named list of cases and how their pictures are scored.

    `cases` reads the benchmark's own files below a path, or makes them itself when `where` is
    empty; `where` says from where a person gets them and under which licence. `crops`: pictures
    are read in each quad alone, not whole. `headline` names the metric that is printed first.
    `redrawn` is there where it makes pages with blueprints of its own: it takes `num_pages` and
    `page_px` (width, height) and gives the same benchmark with so many pages, so large.
    """

    name: str
    cases: Callable[[Path | None], list[Case]]
    metrics: tuple[Metric, ...]
    headline: str
    where: str
    images_per_prompt: int = 1
    crops: bool = False
    redrawn: Callable[..., Benchmark] | None = None

    def __post_init__(self) -> None:
        assert self.headline in {metric.name for metric in self.metrics}


@dataclasses.dataclass(frozen=True)
class Score:
    """A value and the middle 95 % of its values over resampled prompts (percentile bootstrap,
    Efron and Tibshirani 1993, chapter 13)."""

    value: float
    low: float
    high: float


def statistics(
    metric: Metric, cases: Sequence[Case], readings: Sequence[Sequence[Reading]]
) -> Float[np.ndarray, "P S"]:
    """A metric's statistics of each prompt, summed over its pictures."""
    rows = [
        np.sum([metric.measure(case, reading) for reading in several], axis=0, dtype=np.float64)
        for case, several in zip(cases, readings, strict=True)
    ]
    return np.stack(rows)


def resamples(
    num_prompts: int, *, num_resamples: int = 1000, seed: int = 0
) -> Int[np.ndarray, "R P"]:
    """How often each prompt is drawn in each resample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), size=num_resamples)


def interval(
    metric: Metric, rows: Float[np.ndarray, "P S"], draws: Int[np.ndarray, "R P"]
) -> Score:
    """A metric's score of prompts, with its interval."""
    value = float(metric.value(rows.sum(axis=0)))
    return _with_doubt(value, metric.value(draws @ rows))


def paired(
    metric: Metric,
    first: Float[np.ndarray, "P S"],
    other: Float[np.ndarray, "P S"],
    draws: Int[np.ndarray, "R P"],
) -> Score:
    """How much another system's score of the same prompts is above the first's, with its interval:
    both are of the same prompts in each resample."""
    change = metric.value(other.sum(axis=0)) - metric.value(first.sum(axis=0))
    return _with_doubt(float(change), metric.value(draws @ other) - metric.value(draws @ first))


def _with_doubt(value: float, spread: Float[np.ndarray, " R"]) -> Score:
    spread = spread[np.isfinite(spread)]
    if not spread.size:
        return Score(value, float("nan"), float("nan"))
    low, high = np.quantile(spread, (0.025, 0.975))
    return Score(value, float(low), float(high))


def sums_of(
    metrics: Sequence[Metric], cases: Sequence[Case], readings: Sequence[Sequence[Reading]]
) -> dict[str, Float[np.ndarray, "P S"]]:
    """Every metric's statistics of each prompt; `readings` has those of each case's pictures.

    Raises `ValueError` when there are no cases or a case has no reading at all: a picture that is
    missing is to be handed in as one on which nothing was read.
    """
    if not cases:
        raise ValueError("there are no cases to score; take another benchmark, path or --n")
    if empty := [case.name for case, several in zip(cases, readings, strict=True) if not several]:
        raise ValueError(
            f"{len(empty)} of {len(cases)} cases have no picture ({', '.join(empty[:5])}): they "
            "may not leave the denominator, so hand in an empty reading for each"
        )
    rows = [  # case by case, for metrics remember what they ask of the same picture
        [
            np.sum([m.measure(case, reading) for reading in several], axis=0, dtype=np.float64)
            for m in metrics
        ]
        for case, several in zip(cases, readings, strict=True)
    ]
    return {m.name: np.stack([row[i] for row in rows]) for i, m in enumerate(metrics)}


def scores_of(
    metrics: Sequence[Metric],
    sums: Sums,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Score]:
    """Every metric over the prompts of `sums_of`, or over some of their rows."""
    num_prompts = len(next(iter(sums.values())))
    draws = resamples(num_prompts, num_resamples=num_resamples, seed=seed)
    return {metric.name: interval(metric, sums[metric.name], draws) for metric in metrics}


def score(
    metrics: Sequence[Metric],
    cases: Sequence[Case],
    readings: Sequence[Sequence[Reading]],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Score]:
    """Every metric over all prompts; raises `ValueError` where `sums_of` does."""
    sums = sums_of(metrics, cases, readings)
    return scores_of(metrics, sums, num_resamples=num_resamples, seed=seed)


def by_group(cases: Sequence[Case]) -> dict[str, dict[str, list[int]]]:
    """facet -> value -> the places of its cases, values in order."""
    found: dict[str, dict[str, list[int]]] = {}
    for i, case in enumerate(cases):
        for facet, value in case.groups.items():
            found.setdefault(facet, {}).setdefault(value, []).append(i)
    return {facet: dict(sorted(values.items())) for facet, values in found.items()}
