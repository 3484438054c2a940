"""Scores case by case: the sums that metrics are functions of, kept beside `scores.json`, so that
two runs of the same prompts can be told apart prompt by prompt."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from blueprint.formats import to_json as blueprint_json
from evals.results import Results, ResultsError
from evals.scoring import Benchmark, Case, Metric, Reading, Score, Sums, paired, resamples, sums_of

FILE = "cases.jsonl"


class UnpairedError(ValueError):
    """Two runs whose prompts cannot be paired; the message says why."""


@dataclasses.dataclass(frozen=True)
class CaseSums:
    """`rows` has each metric's statistics of each case, summed over its pictures. `asked` tells
    cases of one name and other content apart."""

    names: tuple[str, ...]
    asked: tuple[str, ...]
    num_pictures: tuple[int, ...]
    rows: Sums


def _asked(case: Case) -> str:
    page = case.blueprint and blueprint_json(case.blueprint)
    told = json.dumps([case.prompt, case.targets, case.language, case.quads, page])
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def case_sums(
    benchmark: Benchmark, cases: Sequence[Case], readings: Sequence[Sequence[Reading]]
) -> CaseSums:
    """All metrics of all cases; raises `ValueError` where `scoring.sums_of` does."""
    return CaseSums(
        tuple(case.name for case in cases),
        tuple(map(_asked, cases)),
        tuple(map(len, readings)),
        sums_of(benchmark.metrics, cases, readings),
    )


def to_jsonl(sums: CaseSums) -> str:
    """A line for each case: `{"name", "asked", "pictures", "sums": {metric: [statistics]}}`."""
    lines = []
    for i, name in enumerate(sums.names):
        rows = {metric: list(map(_short, rows[i].tolist())) for metric, rows in sums.rows.items()}
        whole = {"name": name, "asked": sums.asked[i], "pictures": sums.num_pictures[i]}
        line = json.dumps({**whole, "sums": rows}, ensure_ascii=False, separators=(",", ":"))
        lines.append(f"{line}\n")
    return "".join(lines)


def _short(value: float) -> float:
    return int(value) if value.is_integer() else value


def from_jsonl(text: str) -> CaseSums:
    """The inverse of `to_jsonl`; raises `ResultsError` at anything else."""
    try:
        lines = [json.loads(line) for line in text.splitlines()]
        names, asked, pictures = (
            tuple(line[key] for line in lines) for key in ("name", "asked", "pictures")
        )
        metrics = list(lines[0]["sums"])
        rows = {m: np.array([line["sums"][m] for line in lines], np.float64) for m in metrics}
    except (ValueError, KeyError, TypeError, IndexError) as problem:
        raise ResultsError(
            f"these are no sums of cases ({type(problem).__name__}: {problem}): evaluate again"
        ) from None
    return CaseSums(names, asked, pictures, rows)


def load(path: Path) -> CaseSums | None:
    """The sums of a cases.jsonl, None where there is none; raises `ResultsError` that begins with
    the path."""
    if not path.is_file():
        return None
    try:
        return from_jsonl(path.read_text(encoding="utf-8"))
    except (ResultsError, UnicodeDecodeError) as problem:
        raise ResultsError(f"{path}: {problem}") from None


def changes(
    runs: tuple[Results, Results],
    sums: tuple[CaseSums | None, CaseSums | None],
    metrics: Sequence[Metric],
    *,
    num_resamples: int = 1000,
) -> dict[str, Score]:
    """By how much the second run's scores differ from the first's, by metric: the interval is the
    middle 95 % of the difference over resampled prompts, the same ones for both runs, which takes
    out that some prompts are harder than others (paired bootstrap; Efron and Tibshirani 1993).

    Raises `UnpairedError` without sums of both, for sums of other scores, and for other cases.
    """
    first, other = (_checked(run, found, metrics) for run, found in zip(runs, sums, strict=True))
    places = {name: i for i, name in enumerate(first.names)}
    if set(places) != set(other.names) or len(first.names) != len(other.names):
        raise UnpairedError("it was scored on other cases")
    order = [places[name] for name in other.names]
    if unlike := [n for i, n in enumerate(other.names) if first.asked[order[i]] != other.asked[i]]:
        raise UnpairedError(f"{len(unlike):,} of its cases ask for something else ({unlike[0]})")
    draws = resamples(len(order), num_resamples=num_resamples, seed=runs[0].seed)
    return {
        metric.name: paired(metric, first.rows[metric.name][order], other.rows[metric.name], draws)
        for metric in metrics
        if metric.name in first.rows and metric.name in other.rows
    }


def _checked(run: Results, sums: CaseSums | None, metrics: Sequence[Metric]) -> CaseSums:
    """The sums, if the run's scores are theirs."""
    if sums is None:
        raise UnpairedError(f"{run.run} has no {FILE} beside its scores")
    known: Mapping[str, Metric] = {metric.name: metric for metric in metrics}
    if run.headline not in known.keys() & sums.rows.keys():
        raise UnpairedError(f"how {run.headline} of {run.run} is made of sums is not known here")
    for name in sums.rows.keys() & run.metrics.keys() & known.keys():
        value = float(known[name].value(sums.rows[name].sum(axis=0)))
        if not np.isclose(value, run.metrics[name].value, rtol=0, atol=1e-9, equal_nan=True):
            raise UnpairedError(f"{FILE} of {run.run} is not of its scores ({name} differs)")
    return sums
