"""Scores for people: a table for the terminal, `scores.json`, and a page to open."""

from __future__ import annotations

import functools
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from blueprint.typeset import PLAIN_FONT, load_font
from evals.charts import axis_of, curves, scale, stacked, swatch, track
from evals.gallery import GalleryRow, PictureFiles, ShownRow, chosen, shown
from evals.rendering import (
    CEILING,
    NO_FLOORS,
    environment,
    failed,
    hue,
    label,
    number,
    ordered,
    printable,
    signed,
    spaced,
)
from evals.results import Results, to_json
from evals.scoring import Score
from evals.sums import FILE as SUMS
from evals.sums import CaseSums, to_jsonl

_LINE_PX, _GAP_PX = 15, 4
_CURVES = {  # what a stage's curve is the curve of
    "typeset": "reader, on typeset pages", "reconstructed": "tokenizer",
    "given_blueprint": "decoder", "end_to_end": "end to end",
}  # fmt: skip


def sheet(
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    columns: int = 6,
    cell_px: int = 256,
) -> np.ndarray:
    """Pictures in rows, each `cell_px` wide over its caption: uint8 [Y X 3]."""
    font = load_font(PLAIN_FONT, 12)
    wrapped = [textwrap.fill(text, cell_px // 6, max_lines=5) for text in captions]
    rows = -(-len(pictures) // columns)
    heights = [round(p.shape[0] * cell_px / p.shape[1]) for p in pictures]
    lines = max((text.count("\n") + 1 for text in wrapped), default=0)
    wide, high = cell_px + 2 * _GAP_PX, max(heights, default=0) + lines * _LINE_PX + 3 * _GAP_PX
    page = Image.new("RGB", (min(columns, len(pictures)) * wide, rows * high), "white")
    draw = ImageDraw.Draw(page)
    for i, (picture, text, height) in enumerate(zip(pictures, wrapped, heights, strict=True)):
        x, y = i % columns * wide + _GAP_PX, i // columns * high + _GAP_PX
        large = Image.fromarray(picture).resize((cell_px, height), Image.Resampling.LANCZOS)
        page.paste(large, (x, y))
        draw.text((x, y + height + 2), text, "black", font)
    return np.asarray(page)


def _beside(results: Results) -> list[tuple[str, Score]]:
    """The headline's controls, the best first."""
    name = results.headline
    found = [(key, row[name]) for key, row in results.controls.items() if name in row]
    sign = 1 if results.metrics[name].lower_is_better else -1
    return sorted(found, key=lambda pair: (math.isnan(pair[1].value), sign * pair[1].value))


def _room(results: Results) -> tuple[tuple[str, Score], tuple[str, Score]] | None:
    """The best floor and the ceiling, by name, if there are both."""
    beside = [pair for pair in _beside(results) if math.isfinite(pair[1].value)]
    floors = [pair for pair in beside if pair[0] not in NO_FLOORS]
    ceilings = [pair for pair in beside if pair[0] == CEILING]
    return (floors[0], ceilings[0]) if floors and ceilings else None


def verdict(results: Results) -> str:
    """What the headline is worth between its best floor and its ceiling, as a sentence; empty if
    either is not known."""
    room, score = _room(results), results.metrics[results.headline]
    if room is None or math.isnan(score.value):
        return ""
    (floor_name, floor), (ceiling_name, ceiling) = room
    floor_said = f"{number(floor.value)} ({label(floor_name)})"
    width = ceiling.value - floor.value
    worse = 1 if score.lower_is_better else -1
    if worse * width >= 0:
        return (
            f"The control {label(floor_name)} scores as well as {label(ceiling_name)}, "
            f"{number(ceiling.value)}: this metric cannot tell these pictures apart."
        )
    if worse * (score.value - floor.value) >= 0:
        return (
            f"No better than its best floor, {floor_said}: such a score needs no picture "
            "that was made for its prompt."
        )
    share = (score.value - floor.value) / width
    return (
        f"That is {100 * share:.0f} % of the way from its best floor, {floor_said}, to its "
        f"ceiling, {number(ceiling.value)} ({label(ceiling_name)})."
    )


def table(results: Results) -> str:
    """The headline beside its controls, the metrics, the stages, who lost the words and what the
    controls are, as lines of text."""
    name, score = results.headline, results.metrics[results.headline]
    lines = [
        f"{results.run} on {results.benchmark}: {results.num_cases:,} prompts, "
        f"{results.num_pictures:,} pictures, {results.reader_name}",
        *([f"{len(results.missing):,} pictures missing, scored as empty"] * bool(results.missing)),
        "",
        _line(spaced(name), score),
        *(_line(f"  {label(key)}", control) for key, control in _beside(results)),
    ]
    if others := [key for key in results.metrics if key != name]:
        lines += [
            "",
            "other metrics",
            *(_line(f"  {spaced(n)}", results.metrics[n]) for n in others),
        ]
    if stages := {key: row[name] for key, row in results.stages.items() if name in row}:
        lines += ["", "stages", *(_line(f"  {label(key)}", s) for key, s in stages.items())]
    if results.plans:
        lines += ["", "plans", *(_line(f"  {spaced(n)}", s) for n, s in results.plans.items())]
    if results.floors_px:
        floors = ", ".join(f"{label(k)} {px:.3g}" for k, px in results.floors_px.items())
        lines += ["", f"legible from, in pixels per character: {floors}"]
    if results.attribution:
        counts = ordered(results.attribution.total)
        lost = ", ".join(f"{who} {count:,}" for who, count in counts.items() if who != "read")
        num_words = sum(counts.values())
        lines += [
            "",
            f"of {num_words:,} words {counts.get('read', 0):,} were read; lost by: {lost}",
        ]
    return "\n".join([*lines, *_noted(results)])


def _noted(results: Results) -> list[str]:
    """What the controls are and the first of what failed, in lines of 100 columns."""
    lines = ["", "controls"] if results.control_notes else []
    fill = functools.partial(textwrap.wrap, width=100, break_on_hyphens=False)
    for name, note in results.control_notes.items():
        said = f"{label(name)}: {printable(note.said)}"
        lines += fill(said, initial_indent="  ", subsequent_indent="    ")
        if note.problems:
            first = f"{failed(note)}, first of all: {printable(note.problems[0])}"
            lines += fill(first, initial_indent="    ", subsequent_indent="      ")
    return lines


def _line(name: str, score: Score) -> str:
    known = math.isfinite(score.low) and math.isfinite(score.high)
    interval = f"   {number(score.low)} to {number(score.high)}" if known else ""
    return f"{name:<34}{number(score.value):>9}{interval}"


def write(
    folder: Path,
    results: Results,
    gallery: Sequence[GalleryRow],
    sums: CaseSums | None = None,
) -> Path:
    """Write `scores.json`, the page and its pictures into `folder`; the page's path.

    With the `sums` of its cases the run can be compared with others prompt by prompt. `gallery` has
    a row for every scored picture, from which `gallery.chosen` takes some. The same folder can be
    written to again: pictures that this page does not show and an earlier one did are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(to_json(results), encoding="utf-8")
    if sums:
        (folder / SUMS).write_text(to_jsonl(sums), encoding="utf-8")
    pictures = PictureFiles(folder)
    rows = shown(pictures, chosen(gallery))
    page = environment().get_template("report.html").render(
        results=results, gallery=rows, num_rows=len(gallery), facets=_facets(rows),
        has_plans=any(item.plan_link for several in rows.values() for item in several),
        sums_file=SUMS if sums else "", verdict=verdict(results),
        **_headline_plots(results), **_breakdowns(results),
    )  # fmt: skip
    (folder / "index.html").write_text(page, encoding="utf-8")
    pictures.clear()
    return folder / "index.html"


def _facets(rows: Mapping[str, Sequence[ShownRow]]) -> dict[str, list[str]]:
    """The facets worth a filter: those of which the shown rows have several values."""
    found: dict[str, set[str]] = {}
    for item in (item for several in rows.values() for item in several):
        for facet, value in item.row.groups.items():
            found.setdefault(facet, set()).add(value)
    return {facet: _in_order(values) for facet, values in found.items() if len(values) > 1}


def _in_order(values: Iterable[str]) -> list[str]:
    """Sorted, but numbers in strings by their size: 2 to 5 before 10 to 20."""
    parts = lambda text: [  # noqa: E731
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text)
    ]
    return sorted(values, key=parts)


def _headline_plots(results: Results) -> dict[str, Any]:
    """The headline and its controls, and the stages, as rows of plots that share an axis."""
    name, score = results.headline, results.metrics[results.headline]
    beside = _beside(results)
    stages = {key: row[name] for key, row in results.stages.items() if name in row}
    everything = [score, *(s for _, s in beside), *stages.values()]
    axis = axis_of(v for s in everything for v in (s.value, s.low, s.high))
    room = _room(results)
    span = (room[0][1].value, room[1][1].value) if room else None
    ticks = {label(key): control.value for key, control in beside}
    rows = [(results.run, score, "result", ticks)]
    rows += [(label(key), control, "control", {}) for key, control in beside]
    found, before = [], None
    for key, stage in stages.items():
        lost = f"{signed(stage.value - before)} {hue(key)}" if before is not None else ""
        found.append(
            {"label": label(key), "score": stage, "hue": hue(key), "step": lost,
             "track": track(axis, stage, marker=None)}
        )  # fmt: skip
        before = stage.value
    return {
        "beside": [
            {"label": said, "score": s, "hue": colour, "main": colour == "result",
             "track": track(axis, s, room=span, marks=marks, marker=0 if marks else 2)}
            for said, s, colour, marks in rows
        ],
        "stages": found,
        "stage_metrics": {metric for row in results.stages.values() for metric in row},
        "scale": scale(axis),
    }  # fmt: skip


def _breakdowns(results: Results) -> dict[str, Any]:
    """Attribution, legibility and groups, as the template takes them."""
    groups = [group for values in results.groups.values() for group in values.values()]
    scores = [g.metrics[results.headline] for g in groups if results.headline in g.metrics]
    axis = axis_of(v for s in scores for v in (s.value, s.low, s.high))
    whole = {"all cases": results.metrics[results.headline].value}
    metrics = [m for m in results.metrics if any(m in group.metrics for group in groups)]
    lost = results.attribution
    return {
        "group_metrics": sorted(metrics, key=lambda metric: metric != results.headline),
        "grouped": {
            facet: [
                {"value": value, "group": values[value],
                 "track": track(axis, values[value].metrics[results.headline], marks=whole)
                 if results.headline in values[value].metrics else ""}
                for value in _in_order(values)
            ]
            for facet, values in results.groups.items()
        },
        "total": ordered(lost.total) if lost else {},
        "total_bar": stacked(ordered(lost.total), height=34) if lost else "",
        "attributed": {
            facet: [
                {"value": value, "counts": values[value],
                 "bar": stacked(ordered(values[value]), height=14)}
                for value in _in_order(values)
            ]
            for facet, values in (lost.by if lost else {}).items()
        },
        "curves": [
            {"label": _CURVES.get(stage, label(stage)), "bins": bins,
             "swatch": swatch(i, hue(stage)), "floor": results.floors_px.get(stage, math.nan)}
            for i, (stage, bins) in enumerate(results.legibility.items())
        ],
        "curve_drawing": curves(
            results.legibility, results.floors_px, hues={s: hue(s) for s in results.legibility},
            label="share of words read exactly over pixels per character",
        ) if any(results.legibility.values()) else "",
    }  # fmt: skip
