"""CVTG-2K (NJU-PCALab/TextCrafter): 2,000 prompts that quote two to five texts, half of them with
sizes, colours and fonts (CVTG-Style).

Read are `CVTG/2.json` to `5.json` and `CVTG-Style/2.json` to `5.json`, as vendored by
zlab-princeton/i1 below `benchmark_eval/cvtg-2k/prompts/`. A case is named HALF_REGIONS_INDEX, as in
`CVTG-Style_3_17`: its folder, its file and its `index`; the benchmark's own picture is
`CVTG-Style/3/17.png`. The targets are what stands between single straight quotes, as its evaluator
finds them: the data writes apostrophes as ’, so that they do not interfere. `regions` is the file's
number, which nine prompts exceed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from evals.benchmarks.files import checked, find, json_record
from evals.metrics.published import CVTG_NED, CVTG_WORD_ACCURACY
from evals.metrics.strict import STRICT
from evals.scoring import Benchmark, Case

WHERE = (
    "github.com/zlab-princeton/i1, benchmark_eval/cvtg-2k/prompts/ (the data set's card at "
    "NJU-PCALab/TextCrafter says Apache-2.0)"
)
HALVES = ("CVTG", "CVTG-Style")
NUM_REGIONS = ("2", "3", "4", "5")
SINGLE_QUOTED = re.compile(r"'(.*?)'")


def _cases(path: Path | None) -> Iterator[Case]:
    for half in HALVES:
        for regions in NUM_REGIONS:
            name = f"{half}/{regions}.json"
            file = find(path, (name, f"prompts/{name}"), WHERE, several=True)
            for record in json_record(file).records("data_list"):
                prompt = record.string("prompt")
                targets = tuple(t for t in SINGLE_QUOTED.findall(prompt) if t.strip())
                if not targets:
                    raise record.wrong("has a `prompt` with nothing between single quotes")
                groups = {"half": half, "regions": regions}
                case_name = f"{half}_{regions}_{record.name('index')}"
                yield Case(case_name, prompt, targets, groups=groups)


def cases(path: Path | None) -> list[Case]:
    """The prompts of both halves, below the folder that has `CVTG/` and `CVTG-Style/`."""
    return checked(_cases(path), path)


BENCHMARK = Benchmark(
    "cvtg",
    cases,
    (CVTG_WORD_ACCURACY, CVTG_NED, *STRICT),
    headline=CVTG_WORD_ACCURACY.name,
    where=WHERE,
)
