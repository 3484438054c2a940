"""MARIO-Eval (microsoft/unilm, `textdiffuser/eval/`): 5,414 captions of six collections with words
in single quotes.

Read is `{collection}/{collection}.txt` of all six below the folder `MARIOEval`, a prompt a line:
layout from `MARIOEval_generate.py` and `ocr_eval.py`, as the data are on no git host. A case is
named COLLECTION_LINE, as in `TMDBEval500_17`, lines counted from 0 as there. The targets are what
stands between single straight quotes, as its evaluator finds them, apostrophes not excepted. A
prompt that quotes nothing counts there as a picture without a hit; it stays as a case without
targets, in the group `quoted: no`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from evals.benchmarks.files import checked, find, lines
from evals.metrics.published import MARIO_ACCURACY, MARIO_F1, MARIO_PRECISION, MARIO_RECALL
from evals.metrics.strict import STRICT
from evals.scoring import Benchmark, Case

WHERE = "MARIOEval, linked from github.com/microsoft/unilm, textdiffuser/ (mixed licences)"
COLLECTIONS = (
    "LAIONEval4000",
    "OpenLibraryEval500",
    "TMDBEval500",
    "ChineseDrawText",
    "DrawBenchText",
    "DrawTextCreative",
)
SINGLE_QUOTED = re.compile(r"'(.*?)'")


def _cases(path: Path | None) -> Iterator[Case]:
    for collection in COLLECTIONS:
        name = f"{collection}/{collection}.txt"
        file = find(path, (name, f"MARIOEval/{name}"), WHERE, several=True)
        for i, record in enumerate(lines(file)):
            prompt = record.string("prompt")
            targets = tuple(t for t in SINGLE_QUOTED.findall(prompt) if t.strip())
            groups = {"collection": collection, "quoted": "yes" if targets else "no"}
            yield Case(f"{collection}_{i}", prompt, targets, groups=groups)


def cases(path: Path | None) -> list[Case]:
    """The prompts of all six collections, below `MARIOEval` or the folder it is in."""
    return checked(_cases(path), path)


BENCHMARK = Benchmark(
    "mario",
    cases,
    (MARIO_F1, MARIO_PRECISION, MARIO_RECALL, MARIO_ACCURACY, *STRICT),
    headline=MARIO_F1.name,
    where=WHERE,
    images_per_prompt=4,
)
