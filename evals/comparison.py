"""Several runs of one benchmark side by side, as one page."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.benchmarks import BENCHMARKS
from evals.charts import MARKERS, axis_of, curves, scale, stacked, swatch, track
from evals.rendering import CEILING, NO_FLOORS, environment, label, ordered, signed
from evals.results import MetricScore, Results, load
from evals.scoring import Metric, Score
from evals.sums import FILE, CaseSums, UnpairedError, changes
from evals.sums import load as load_sums

_NUM_HUES = 6


class ComparisonError(ValueError):
    """Runs whose scores do not mean the same."""


@dataclasses.dataclass(frozen=True)
class Delta:
    """By how much another score differs from the first and which is better, in words; `clear` if it
    is known that they differ."""

    said: str
    clear: bool = False


def delta(
    first: Score, other: Score, *, lower_is_better: bool, paired: Score | None = None
) -> Delta:
    """The difference with its interval by `sums.changes`, or else with whether the scores' own
    intervals overlap. Those are of each run alone: apart, the runs differ; overlapping, they still
    may."""
    change = other.value - first.value
    if math.isnan(change):
        return Delta("")
    if not change:
        return Delta("equal")
    better = (change < 0) == lower_is_better
    said = f"{signed(change)} {'better' if better else 'worse'}"
    if paired and not math.isnan(paired.low):
        clear = paired.low > 0 or paired.high < 0
        ends = f"{signed(paired.low)} to {signed(paired.high)}"
        return Delta(f"{said}, paired {ends}: {'differs' if clear else 'may be chance'}", clear)
    ends = first.low, first.high, other.low, other.high
    if any(map(math.isnan, ends)):
        return Delta(said)
    apart = first.high < other.low or other.high < first.low
    return Delta(f"{said}, intervals {'apart' if apart else 'overlap'}", apart)


@dataclasses.dataclass(frozen=True)
class Pairing:
    """How a run differs from the first, prompt by prompt: by metric, or `why_not`."""

    changes: Mapping[str, Score]
    why_not: str = ""


def pairings(runs: Sequence[Results], sums: Mapping[str, CaseSums | None]) -> dict[str, Pairing]:
    """Every run but the first, by its name, as `sums` do theirs."""
    found, first = {}, runs[0]
    for other in runs[1:]:
        both = sums.get(first.run), sums.get(other.run)
        try:
            found[other.run] = Pairing(changes((first, other), both, _metrics_of(first.benchmark)))
        except UnpairedError as problem:
            found[other.run] = Pairing({}, str(problem))
    return found


def _metrics_of(benchmark: str) -> Sequence[Metric]:
    """Those of a benchmark that is still there."""
    return BENCHMARKS[benchmark].metrics if benchmark in BENCHMARKS else ()


def _delta_to(first: Results, pairs: Mapping[str, Pairing]) -> Callable[[Results, str], Delta]:
    """What the page asks for: how a run's metric differs from the first's."""

    def of(run: Results, name: str) -> Delta:
        if name not in first.metrics or name not in run.metrics:
            return Delta("")
        known = pairs[run.run].changes.get(name) if run.run in pairs else None
        lower = first.metrics[name].lower_is_better
        return delta(first.metrics[name], run.metrics[name], lower_is_better=lower, paired=known)

    return of


def refuse_mismatch(runs: Sequence[Results]) -> None:
    """Raises `ComparisonError` unless all runs are of the first's benchmark, headline and reader,
    under names of their own."""
    if len(runs) < 2:
        raise ComparisonError("a comparison takes the scores of two runs at least")
    first = runs[0]
    for other in runs[1:]:
        if other.benchmark != first.benchmark:
            raise ComparisonError(
                f"{other.run} was scored on {other.benchmark} and {first.run} on "
                f"{first.benchmark}: compare runs of one benchmark"
            )
        if other.headline != first.headline:
            raise ComparisonError(
                f"{other.run} leads with {other.headline} and {first.run} with {first.headline}: "
                f"evaluate both with one version of {first.benchmark}"
            )
        if other.reader != first.reader:
            keys = sorted({*first.reader, *other.reader})
            unlike = [key for key in keys if first.reader.get(key) != other.reader.get(key)]
            said = "; ".join(f"{k}: {first.reader.get(k)}, {other.reader.get(k)}" for k in unlike)
            raise ComparisonError(
                f"{first.run} and {other.run} were read by different readers ({said}), so their "
                "scores do not compare: evaluate both with one reader"
            )
    if double := [name for name, count in Counter(run.run for run in runs).items() if count > 1]:
        raise ComparisonError(f"two runs are called {double[0]!r}: give each its own `run`")


def caveats(runs: Sequence[Results]) -> list[str]:
    """What differs between the runs without forbidding the comparison, a sentence each."""
    found = []
    for what, values in (
        ("numbers of prompts", [run.num_cases for run in runs]),
        ("images a prompt", [run.images_per_prompt for run in runs]),
        ("seeds", [run.seed for run in runs]),
        ("missing pictures", [len(run.missing) for run in runs]),
    ):
        if len(set(values)) > 1:
            found.append(f"The runs have different {what}: {', '.join(map(str, values))}.")
    for name in dict.fromkeys(name for run in runs for name in run.versions):
        versions = [run.versions.get(name, "none") for run in runs]
        if name != "letterpress" and len(set(versions)) > 1:
            found.append(f"The runs have different versions of {name}: {', '.join(versions)}.")
    return found


def compare(runs: Sequence[Results], sums: Mapping[str, CaseSums | None] | None = None) -> str:
    """The page; with the runs' `sums` by their names, what is of the same prompts is compared
    prompt by prompt. Raises `ComparisonError` where `refuse_mismatch` does."""
    refuse_mismatch(runs)
    pairs = pairings(runs, sums or {})
    return environment().get_template("comparison.html").render(
        runs=runs, first=runs[0], caveats=caveats(runs), delta=delta,
        delta_to=_delta_to(runs[0], pairs), pairs=pairs,
        swatches=[swatch(i, _hue(i)) for i in range(len(runs))],
        hues=[_hue(i) for i in range(len(runs))],
        metrics=_known(run.metrics for run in runs),
        stages=_ordered(run.stages for run in runs),
        plans=_known(run.plans for run in runs),
        controls=_ordered(run.controls for run in runs),
        whos=_ordered(ordered(run.attribution.total) for run in runs if run.attribution),
        groups=_groups(runs), **_plots(runs), **_curves(runs),
    )  # fmt: skip


def named(paths: Sequence[Path]) -> list[Results]:
    """The results of several scores.json, under their own names, or where those are not unique
    under those of their folders."""
    runs = [load(path) for path in paths]
    names = [run.run for run in runs]
    if len(set(names)) < len(names):
        names = [str(path.parent) for path in paths]
    return [dataclasses.replace(run, run=name) for run, name in zip(runs, names, strict=True)]


def sums_beside(paths: Sequence[Path], runs: Sequence[Results]) -> dict[str, CaseSums | None]:
    """The sums of cases beside each scores.json, by the run's name; None where there are none."""
    found = zip(runs, paths, strict=True)
    return {run.run: load_sums(path.with_name(FILE)) for run, path in found}


def _hue(place: int) -> str:
    return str(place % _NUM_HUES)


def _ordered(several: Iterable[Iterable[str]]) -> list[str]:
    """All names of several mappings, each once, in their order."""
    return list(dict.fromkeys(name for names in several for name in names))


def _known(several: Iterable[Mapping[str, MetricScore]]) -> dict[str, MetricScore]:
    """The first run's of each metric, for what its name means."""
    found: dict[str, MetricScore] = {}
    for scores in several:
        for name, score in scores.items():
            found.setdefault(name, score)
    return found


def _groups(runs: Sequence[Results]) -> dict[str, list[str]]:
    facets = _ordered(run.groups for run in runs)
    return {facet: _ordered(run.groups.get(facet, {}) for run in runs) for facet in facets}


def _plots(runs: Sequence[Results]) -> dict[str, Any]:
    """Tracks of the headline on one axis, by run and by stage and run, and attribution bars."""
    name = runs[0].headline
    scores = [run.metrics[name] for run in runs]
    scores += [row[name] for run in runs for row in run.stages.values() if name in row]
    controls = [
        {key: row[name].value for key, row in run.controls.items() if name in row} for run in runs
    ]
    values = [v for s in scores for v in (s.value, s.low, s.high)]
    axis = axis_of([*values, *(value for row in controls for value in row.values())])
    pick = min if runs[0].metrics[name].lower_is_better else max
    rooms = []
    for row in controls:
        floors = [v for key, v in row.items() if key not in NO_FLOORS and math.isfinite(v)]
        rooms.append((pick(floors), row[CEILING]) if floors and CEILING in row else None)
    marked = zip(runs, rooms, controls, strict=True)
    return {
        "tracks": [
            track(axis, run.metrics[name], room=room, marks=marks, marker=i % len(MARKERS))
            for i, (run, room, marks) in enumerate(marked)
        ],
        "stage_tracks": {
            stage: [
                track(axis, run.stages[stage][name], marker=i % len(MARKERS))
                if name in run.stages.get(stage, {}) else ""
                for i, run in enumerate(runs)
            ]
            for stage in _ordered(run.stages for run in runs)
        },
        "scale": scale(axis),
        "bars": [
            stacked(ordered(run.attribution.total)) if run.attribution else "" for run in runs
        ],
    }  # fmt: skip


def _curves(runs: Sequence[Results]) -> dict[str, Any]:
    """A drawing for each stage that has curves."""
    found = {}
    for stage in _ordered(run.legibility for run in runs):
        # Runs without this curve keep their place, and so the others their markers.
        series = {run.run: run.legibility.get(stage, ()) for run in runs}
        if any(series.values()):
            found[stage] = curves(
                series,
                {run.run: run.floors_px.get(stage, math.nan) for run in runs},
                hues={run.run: _hue(i) for i, run in enumerate(runs)},
                label=f"share of words read exactly over pixels per character, {label(stage)}",
                says_floors=False,
            )
    return {"drawings": found}
