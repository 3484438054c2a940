"""LongText-Bench (X-Omni-Team/X-Omni, `textbench/`): pages of long text in eight categories,
English and Chinese, 160 prompts each.

A case is named by its `prompt_id`, as the pictures are in the benchmark's own folders
(`{prompt_id}_{repeat}.png`); the numbers run to 199 with gaps. Format read from the files of commit
2b8237b. About a quarter of the English targets end in a stop that the prompt does not have, so
strict metrics are best read unpunctuated.
"""

from __future__ import annotations

import functools
from pathlib import Path

from evals.benchmarks.files import checked, find, jsonl
from evals.metrics.published import LONGTEXT_RECALL
from evals.metrics.strict import STRICT
from evals.scoring import Benchmark, Case

WHERE = "github.com/X-Omni-Team/X-Omni, textbench/ (Apache-2.0)"
FILES = {"en": "text_prompts.jsonl", "zh": "text_prompts_zh.jsonl"}


def cases(path: Path | None, *, language: str = "en") -> list[Case]:
    """The prompts of one language, below the repository, its `textbench/`, or in the file."""
    name = FILES[language]
    file = find(path, (name, f"textbench/{name}"), WHERE)
    return checked(
        (
            Case(
                record.name("prompt_id"),
                record.string("prompt"),
                record.strings("text"),
                groups={key: record.string(key) for key in ("category", "length")},
                language=language,
            )
            for record in jsonl(file)
        ),
        file,
    )


def _benchmark(language: str) -> Benchmark:
    return Benchmark(
        f"longtext_{language}",
        functools.partial(cases, language=language),
        (LONGTEXT_RECALL, *STRICT),
        headline=LONGTEXT_RECALL.name,
        where=f"{FILES[language]} of {WHERE}",
        images_per_prompt=4,
    )


BENCHMARK, BENCHMARK_ZH = _benchmark("en"), _benchmark("zh")
