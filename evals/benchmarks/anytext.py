"""AnyText-benchmark (tyxsspa/AnyText, `eval/`): 1,000 English and 1,000 Chinese captions whose
lines of text have given places.

Read is `laion_word/test1k.json` (en) or `wukong_word/test1k.json` (zh): field names from
`eval/anytext_singleGPU.py`, as the data are on no git host. A case is named by the stem of its
`img_name`, as the benchmark's own pictures are (`{stem}_{repeat}.jpg`). As there, lines that are
not `valid` or have no polygon are left out, a line is asked for as its first 20 characters, a
picture for its first 20 lines, and polygons lie on a canvas of 512 pixels; each becomes the
smallest rectangle about it. A caption without a line adds no line there either: it stays as a case
without targets, in the group `lines: 00`. The prompt is the caption and the lines in quotes, for
models that are handed no places.

Only crops are read, so none of the strict metrics is taken: text outside the places is never seen,
and the order of reading is given.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from evals.benchmarks.files import Record, checked, find, fit_name, json_record
from evals.metrics.published import ANYTEXT_NED, ANYTEXT_SENTENCE_ACCURACY
from evals.scoring import Benchmark, Case, Quad

WHERE = "the data set iic/AnyText-benchmark on ModelScope, linked from github.com/tyxsspa/AnyText"
FOLDERS = {"en": "laion_word", "zh": "wukong_word"}
CANVAS_PX = 512
MOST_LINES = MOST_CHARS = 20


def smallest_rectangle(points: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "4 2"]:
    """The rectangle of least area about some points, clockwise from its top left corner.

    One of its sides lies on an edge of their hull (Freeman and Shapira 1975), so every direction
    from one point to another is tried; the side nearest to level is the top.
    """
    steps = (points[:, None] - points[None]).reshape(-1, 2)
    angles = np.arctan2(steps[:, 1], steps[:, 0])
    # A quarter turn of a rectangle is the same rectangle: what is left lies within 45 degrees.
    angles = np.unique(np.round((angles + np.pi / 4) % (np.pi / 2) - np.pi / 4, 9))
    turns = np.stack([np.cos(angles), np.sin(angles), -np.sin(angles), np.cos(angles)], -1)
    turns = turns.reshape(-1, 2, 2)  # rows: along the top, down the side
    turned = np.einsum("Rij,Pj->RPi", turns, points)
    low, high = turned.min(axis=1), turned.max(axis=1)
    best = int(np.prod(high - low, axis=-1).argmin())
    (left, top), (right, foot) = low[best], high[best]
    corners = np.array([[left, top], [right, top], [right, foot], [left, foot]])
    return corners @ turns[best]


def _quad(line: Record) -> Quad:
    def is_polygon(value: Any) -> bool:
        try:
            points = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            return False
        shaped = points.ndim == 2 and points.shape[1] == 2 and len(points) >= 3
        return shaped and bool(np.isfinite(points).all())

    polygon = line.get("polygon", "a list of at least three points [x, y]", is_polygon)
    corners = smallest_rectangle(np.asarray(polygon, np.float64)) / CANVAS_PX
    return tuple((float(x), float(y)) for x, y in corners)


def _is_counted(line: Record) -> bool:
    return line.fields.get("valid") is not False and line.fields.get("polygon") != []


def quote(string: str) -> str:
    """A string in quotes that are not in it, if there are such."""
    return f"“{string}”" if '"' in string else f'"{string}"'


def _case(record: Record, language: str) -> Case:
    counted = [line for line in record.records("annotations") if _is_counted(line)][:MOST_LINES]
    targets = tuple(line.string("text")[:MOST_CHARS] for line in counted)
    caption = record.string("caption").replace("*", " ")
    if targets:
        caption = f"{caption.rstrip(' .')}, with the text {', '.join(map(quote, targets))}"
    return Case(
        fit_name(Path(record.string("img_name")).stem),
        caption,
        targets,
        tuple(map(_quad, counted)),
        groups={"lines": f"{len(targets):02}"},
        language=language,
    )


def cases(path: Path | None, *, language: str = "en") -> list[Case]:
    """The captions of one language, below the `benchmark` folder, the language's own, or in the
    file."""
    name = f"{FOLDERS[language]}/test1k.json"
    file = find(path, (name, f"benchmark/{name}", "test1k.json"), WHERE)
    records = json_record(file).records("data_list")
    return checked((_case(record, language) for record in records), file)


def _benchmark(language: str) -> Benchmark:
    return Benchmark(
        f"anytext_{language}",
        functools.partial(cases, language=language),
        (ANYTEXT_SENTENCE_ACCURACY, ANYTEXT_NED),
        headline=ANYTEXT_SENTENCE_ACCURACY.name,
        where=f"{FOLDERS[language]}/test1k.json of {WHERE}",
        images_per_prompt=4,
        crops=True,
    )


BENCHMARK, BENCHMARK_ZH = _benchmark("en"), _benchmark("zh")
