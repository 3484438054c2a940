"""SimpleBench and CreativeBench of GlyphControl (AIGText/GlyphControl-release, `text_prompts/`):
one quoted word a prompt, 400 prompts each in four buckets by how frequent the word is.

Read are the four files of `paper/SimpleBench/` or `paper/CreativeBench/`, a prompt a line. A case
is named BUCKET_PLACE, as in `top_1000_07`: the file's bucket of ranks and the line from 0 (a
numbering of ours: the published evaluator works on the words themselves). Formats read from the
files.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from evals.benchmarks.files import checked, find, lines
from evals.metrics.published import (
    SIMPLE_ACCURACY,
    SIMPLE_ACCURACY_FOLDED,
    SIMPLE_EDIT_DISTANCE,
)
from evals.metrics.strict import STRICT
from evals.scoring import Benchmark, Case

WHERE = "github.com/AIGText/GlyphControl-release, text_prompts/paper/ (MIT)"
BUCKETS = ("top_1000", "1000_10000", "10000_100000", "100000_plus")
FILES = {
    "SimpleBench": "all_unigram_{}_100_1_gram.txt",
    "CreativeBench": ("all_unigram_{}_100_prompt_file_GlyphDraw_origin_remove_render_words.txt"),
}
QUOTED = re.compile(r'"([^"]+)"')


def _cases(path: Path | None, bench: str) -> Iterator[Case]:
    for bucket in BUCKETS:
        name = FILES[bench].format(bucket)
        folders = ("", f"{bench}/", f"paper/{bench}/", f"text_prompts/paper/{bench}/")
        file = find(path, [folder + name for folder in folders], WHERE, several=True)
        for i, record in enumerate(lines(file)):
            prompt = record.string("prompt")
            targets = tuple(word for word in QUOTED.findall(prompt) if word.strip())
            if not targets:
                raise record.wrong("quotes no word")
            yield Case(f"{bucket}_{i:02}", prompt, targets, groups={"frequency": bucket})


def cases(path: Path | None, *, bench: str = "SimpleBench") -> list[Case]:
    """The prompts of one of the two, below the repository or any folder down to its own."""
    return checked(_cases(path, bench), path)


def _benchmark(bench: str) -> Benchmark:
    return Benchmark(
        bench.lower(),
        functools.partial(cases, bench=bench),
        (SIMPLE_ACCURACY, SIMPLE_ACCURACY_FOLDED, SIMPLE_EDIT_DISTANCE, *STRICT),
        headline=SIMPLE_ACCURACY.name,
        where=f"{bench}/ of {WHERE}",
        images_per_prompt=4,
    )


BENCHMARK, BENCHMARK_CREATIVE = _benchmark("SimpleBench"), _benchmark("CreativeBench")
