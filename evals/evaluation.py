"""One evaluation: what was read on pictures, scored whole and by group, by stage and by word."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from blueprint.schema import Blueprint
from evals.attribution import STAGES, attribution
from evals.controls import Control
from evals.facets import target_words
from evals.legibility import Bin, curve, floor_px
from evals.plans import plan_scores
from evals.readers import Reader
from evals.results import (
    Attribution,
    Group,
    LegibilityBin,
    MetricScore,
    Results,
    versions,
)
from evals.scoring import (
    Benchmark,
    Case,
    Reading,
    Score,
    Sums,
    by_group,
    score,
    scores_of,
)
from evals.sums import CaseSums

Readings = Sequence[Sequence[Reading]]
LAST = "end_to_end"  # the stage that the headline is of
LEGIBLE_STAGES = ("typeset", "reconstructed", "given_blueprint")  # printed in the sizes asked for


@dataclasses.dataclass(frozen=True)
class Told:
    """What a report says that no score does: whose pictures they are, the command that scores them
    again, the seed of all resampling, and which pictures were lost."""

    run: str
    command: str
    seed: int = 0
    missing: tuple[str, ...] = ()


def described(benchmark: Benchmark, scores: Mapping[str, Score]) -> dict[str, MetricScore]:
    """Scores with their metrics' sources and directions."""
    return {
        metric.name: MetricScore(
            **dataclasses.asdict(scores[metric.name]),
            source=metric.source,
            lower_is_better=metric.lower_is_better,
        )
        for metric in benchmark.metrics
    }


def grouped(
    benchmark: Benchmark, cases: Sequence[Case], sums: Sums, *, seed: int = 0
) -> dict[str, dict[str, Group]]:
    """All scores for every value of every facet that tells the cases apart; `sums` are of
    `scoring.sums_of`."""
    found: dict[str, dict[str, Group]] = {}
    for facet, values in by_group(cases).items():
        for value, places in values.items() if len(values) > 1 else ():
            part = {name: rows[places] for name, rows in sums.items()}
            scores = scores_of(benchmark.metrics, part, seed=seed)
            found.setdefault(facet, {})[value] = Group(len(places), scores)
    return found


def evaluated(
    benchmark: Benchmark,
    cases: Sequence[Case],
    sums: CaseSums,
    controls: Mapping[str, Control],
    reader: Reader,
    *,
    told: Told,
) -> Results:
    """The results of pictures that any system made, of their `sums.case_sums`."""
    scores = scores_of(benchmark.metrics, sums.rows, seed=told.seed)
    return Results(
        benchmark=benchmark.name,
        run=told.run,
        headline=benchmark.headline,
        command=told.command,
        versions=versions(),
        reader=dict(reader.identity),
        seed=told.seed,
        images_per_prompt=max(sums.num_pictures),
        num_cases=len(cases),
        num_pictures=sum(sums.num_pictures),
        metrics=described(benchmark, scores),
        controls={name: control.scores for name, control in controls.items()},
        missing=told.missing,
        groups=grouped(benchmark, cases, sums.rows, seed=told.seed),
        control_notes={name: control.note for name, control in controls.items()},
    )


def with_stages(
    results: Results,
    benchmark: Benchmark,
    cases: Sequence[Case],
    stages: Mapping[str, Readings],
    plans: Sequence[Blueprint | None],
    *,
    said: Mapping[str, str],
) -> Results:
    """The results of a bundle of ours, which are those of its stage `LAST`: with the scores of
    every other stage, who lost each word, the sizes from which type is legible, and the planner's
    own scores.

    Stages other than `attribution.STAGES` are controls; `said` is what each of them is.
    """
    scores = {
        name: score(benchmark.metrics, cases, readings, seed=results.seed)
        for name, readings in stages.items()
        if name != LAST
    }
    scores[LAST] = {
        name: Score(found.value, found.low, found.high) for name, found in results.metrics.items()
    }
    others = [name for name in stages if name not in STAGES]
    beside = {name: Control(scores[name], len(cases), said[name]) for name in others}
    reads = {name: [several[0].strings for several in stages[name]] for name in STAGES}
    words = [target_words(case) for case in cases]
    lost = attribution(words, reads)
    bins = curve(words, reads, axis="char_px", seed=results.seed)
    sizes = curve(words, reads, axis="type_px", seed=results.seed)
    planned = plan_scores(cases, plans)
    return dataclasses.replace(
        results,
        stages={name: scores[name] for name in STAGES},
        controls={**results.controls, **{name: c.scores for name, c in beside.items()}},
        control_notes={**results.control_notes, **{name: c.note for name, c in beside.items()}},
        attribution=Attribution(lost["total"], lost["by"]),
        legibility={stage: _curve(bins, stage) for stage in LEGIBLE_STAGES},
        floors_px=_floors(bins),
        type_floors_px=_floors(sizes),
        plans={name: MetricScore(value, math.nan, math.nan) for name, value in planned.items()},
    )


def _floors(bins: Sequence[Bin]) -> dict[str, float]:
    found = {stage: floor_px(bins, stage) for stage in LEGIBLE_STAGES}
    return {stage: px for stage, px in found.items() if px is not None}


def _curve(bins: Sequence[Bin], stage: str) -> tuple[LegibilityBin, ...]:
    """One stage's curve; the open last bin ends a quarter above its least size."""
    rows = []
    for b in bins:
        high = b.high_px if math.isfinite(b.high_px) else 1.25 * b.low_px
        found = b.accuracy[stage]
        rows.append(
            LegibilityBin((b.low_px, high), found.value, found.low, found.high, b.num_words)
        )
    return tuple(rows)


def legible_px(results: Results) -> float | None:
    """The least type that is legible as a press prints a blueprint, in pixels; None where it is not
    known."""
    floors = results.type_floors_px
    return max(floors.values()) if set(LEGIBLE_STAGES) <= set(floors) else None
