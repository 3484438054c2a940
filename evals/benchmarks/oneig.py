"""OneIG-Bench's text subset (OneIG-Bench/OneIG-Benchmark, `scripts/text/`): 200 prompts each in
English and Chinese, slides, posters, advertising, graffiti, menus.

A case is named by its `id` (`000` to `199`), as the benchmark's own pictures are. The targets are
the list in `text_content`, a Python literal. Where `OneIG-Bench.csv` (or `-ZH`) lies in the same
copy of the repository, its Text_Rendering rows give the groups `class` and `length`. Formats read
from the files.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from evals.benchmarks.files import Record, checked, find, table
from evals.metrics.published import (
    ONEIG_COMPLETE,
    ONEIG_EDIT_DISTANCE,
    ONEIG_TEXT,
    ONEIG_WORD_ACCURACY,
)
from evals.metrics.strict import STRICT
from evals.scoring import Benchmark, Case

WHERE = "github.com/OneIG-Bench/OneIG-Benchmark, scripts/text/ (data CC-BY-NC-4.0)"
FILES = {
    "en": ("text_content.csv", "OneIG-Bench.csv", "prompt_en"),
    "zh": ("text_content_zh.csv", "OneIG-Bench-ZH.csv", "prompt_cn"),
}


def _targets(record: Record) -> tuple[str, ...]:
    written = record.string("text_content")
    try:
        found = ast.literal_eval(written)
    except (ValueError, SyntaxError):
        found = None
    return Record(record.place, {"text_content": found}).strings("text_content")


def _groups(file: Path, name: str) -> dict[str, dict[str, str]]:
    above = [folder / name for folder in file.parents[:3]]
    sheet = next((path for path in above if path.is_file()), None)
    rows = table(sheet, ("category", "id", "class")) if sheet else []
    found = {}
    for row in rows:
        if row.fields["category"] == "Text_Rendering":
            parts = {"class": row.fields["class"], "length": row.fields.get("prompt_length")}
            found[row.string("id")] = {key: value for key, value in parts.items() if value}
    return found


def cases(path: Path | None, *, language: str = "en") -> list[Case]:
    """The prompts of one language, below the repository, its `scripts/text/`, or in the file."""
    name, sheet, prompt = FILES[language]
    file = find(path, (name, f"scripts/text/{name}"), WHERE)
    groups = _groups(file, sheet)
    return checked(
        (
            Case(
                record.string("id"),
                record.string(prompt),
                _targets(record),
                groups=groups.get(record.string("id"), {}),
                language=language,
            )
            for record in table(file, ("id", prompt, "text_content"))
        ),
        file,
    )


def _benchmark(language: str) -> Benchmark:
    published = (ONEIG_TEXT, ONEIG_EDIT_DISTANCE, ONEIG_COMPLETE, ONEIG_WORD_ACCURACY)
    return Benchmark(
        f"oneig_{language}",
        functools.partial(cases, language=language),
        (*published, *STRICT),
        headline=ONEIG_TEXT.name,
        where=f"{FILES[language][0]} of {WHERE}",
        images_per_prompt=4,
    )


BENCHMARK, BENCHMARK_ZH = _benchmark("en"), _benchmark("zh")
