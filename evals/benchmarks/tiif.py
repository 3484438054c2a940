"""TIIF-Bench's text dimension (A113N-W3I/TIIF-Bench): 300 prompts, each in a short and a long
version, with words in quotes.

Read is `text_prompts.jsonl` of `data/test_prompts/` (or of `data/testmini_prompts/`, given as the
file). A case is named by its place from 0, as the benchmark's own pictures are
(`{version}_description/{place}.png`). The benchmark leaves it to its user to write down the words
of a prompt: taken are the quoted strings of the short version, also for the long one, which writes
some in capitals. They are those of the yes/no questions in `data/test_eval_prompts/`, but for
prompt 179, where the questions leave out `goal`. Formats read from the files.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from evals.benchmarks.files import Record, checked, find, jsonl
from evals.metrics.published import TIIF_GNED, TIIF_RECALL
from evals.metrics.strict import STRICT
from evals.scoring import Benchmark, Case

WHERE = "github.com/A113N-W3I/TIIF-Bench, data/test_prompts/ (no licence stated)"
QUOTED = re.compile(r'"([^"]*)"')


def _targets(record: Record) -> tuple[str, ...]:
    found = tuple(t for t in QUOTED.findall(record.string("short_description")) if t.strip())
    if not found:
        raise record.wrong("has a `short_description` that quotes nothing")
    return found


def cases(path: Path | None, *, version: str = "short") -> list[Case]:
    """The prompts of one version, below the repository, the file's folder, or in the file."""
    name = "text_prompts.jsonl"
    file = find(path, (name, f"data/test_prompts/{name}", f"test_prompts/{name}"), WHERE)
    found = []
    for i, record in enumerate(jsonl(file)):
        targets = _targets(record)
        prompt = record.string(f"{version}_description")
        found.append(Case(str(i), prompt, targets, groups={"words": f"{len(targets):02}"}))
    return checked(found, file)


def _benchmark(version: str) -> Benchmark:
    return Benchmark(
        f"tiif_{version}",
        functools.partial(cases, version=version),
        (TIIF_GNED, TIIF_RECALL, *STRICT),
        headline=TIIF_RECALL.name,
        where=f"text_prompts.jsonl of {WHERE}",
    )


BENCHMARK, BENCHMARK_LONG = _benchmark("short"), _benchmark("long")
