"""Pages read back while a model trains: the benchmark's own strict scores, as numbers a run can be
saved by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blueprint.schema import Blueprint
from evals.metrics.strict import STRICT
from evals.metrics.words import word_accuracy
from evals.readers import Reader
from evals.scoring import Case, Reading, sums_of


def read_back(
    reader: Reader, blueprints: Sequence[Blueprint], pictures: Sequence[np.ndarray]
) -> dict[str, float]:
    """Every metric of `evals.metrics.strict.STRICT` that exists for these pages (each picture is
    uint8 [Y X 3] of its blueprint), and `word_accuracy`, by the name that configs expect it.

    As `pages` scores them: `config.loop.checkpoint.best_metric` can be `eval/word_f1`.
    """
    cases = [
        Case(str(i), "", tuple(text.string for text in page.texts), blueprint=page)
        for i, page in enumerate(blueprints)
    ]
    readings = [
        [Reading(tuple(reader.read(picture)), (picture.shape[1], picture.shape[0]))]
        for picture in pictures
    ]
    sums = sums_of(STRICT, cases, readings)
    found = {metric.name: float(metric.value(sums[metric.name].sum(axis=0))) for metric in STRICT}
    reads = [reading.strings for (reading,) in readings]
    accuracy = word_accuracy([page.words for page in blueprints], reads)
    finite = {name: value for name, value in found.items() if np.isfinite(value)}
    return {"word_accuracy": accuracy, **finite}
