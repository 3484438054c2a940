"""TokBench's text part (wjf5203/TokBench): pictures with words in boxes that go through a tokenizer
and are read again in each box.

Read is `annotations/text_{collection}.json` for eight collections, lists of
`{file_name, width, height, annotations: [{bbox, rec, ratio}]}`, and the pictures
`images/text_data/{collection}/{file_name}`: fields from `eval_text.py` and
`doctr/datasets/ocr_json.py`, the layout from `eval.sh`, as the data are on no git host (the folder
`images/text_data` by analogy with `images/face_data`, which it names). A `bbox` is left, top,
right, foot in whole pixels. A case is named COLLECTION_STEM, as in `ic13_img_1`; `source` is the
picture to begin with. `tokbench` is the setting of 256 pixels, `tokbench_512` and `tokbench_1024`
the others: they differ in which words count as small.

Only crops are read, so none of the strict metrics is taken: text outside the boxes is never seen,
and the order of reading is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evals.benchmarks.files import Record, checked, find, fit_name, json_list
from evals.metrics.published import tokbench
from evals.scoring import Benchmark, Case, Quad

WHERE = "the data set linked from github.com/wjf5203/TokBench (mixed licences of its collections)"
COLLECTIONS = ("ic13", "ic15", "tt", "textocr", "cord", "sroie", "infograph", "docvqa")


def _is_box(value: Any) -> bool:
    numbers = isinstance(value, list) and all(type(n) in (int, float) for n in value)
    if not numbers or len(value) != 4 or not all(map(math.isfinite, value)):
        return False
    left, top, right, foot = map(int, value)
    return left < right and top < foot


def _quad(word: Record, size_px: tuple[float, float]) -> Quad:
    left, top, right, foot = map(int, word.get("bbox", "[left, top, right, foot]", _is_box))
    across, down = size_px
    corners = (left, top), (right, top), (right, foot), (left, foot)
    return tuple((x / across, y / down) for x, y in corners)


def _case(record: Record, collection: str, folder: Path) -> Case:
    size_px = record.number("width"), record.number("height")
    words = record.records("annotations")
    if not words:
        raise record.wrong("has no words in its `annotations`")
    source = folder / record.string("file_name")
    if not source.is_file():
        raise FileNotFoundError(f"there is no {source}: get the pictures from {WHERE}")
    return Case(
        fit_name(f"{collection}_{source.stem}"),
        "",
        tuple(word.string("rec") for word in words),
        tuple(_quad(word, size_px) for word in words),
        groups={"collection": collection},
        source=source,
    )


def _cases(path: Path | None) -> Iterator[Case]:
    for collection in COLLECTIONS:
        name = f"annotations/text_{collection}.json"
        file = find(path, (name, f"TokBench/{name}"), WHERE, several=True)
        folder = file.parents[1] / "images" / "text_data" / collection
        for record in json_list(file):
            yield _case(record, collection, folder)


def cases(path: Path | None) -> list[Case]:
    """The pictures of all collections, below the folder that has `annotations/` and `images/`."""
    return checked(_cases(path), path)


def _benchmark(long_side_px: int) -> Benchmark:
    metrics = tokbench(long_side_px)
    name = "tokbench" if long_side_px == 256 else f"tokbench_{long_side_px}"
    return Benchmark(name, cases, metrics, headline=metrics[0].name, where=WHERE, crops=True)


BENCHMARK, BENCHMARK_512, BENCHMARK_1024 = map(_benchmark, (256, 512, 1024))
