"""LeX-Bench (zhaoshitian/LeX-Art): lists of words to be drawn with a colour, a font or a position,
in three levels of 1 to many words.

Read are `lex_bench_easy.json`, `lex_bench_medium.json` and `lex_bench_hard.json` of the data set,
as many as are there; a result file of the repository's evaluation has the same fields. Each prompt
exists twice: `lex` takes `caption`, `lex_enhanced` the rewritten `enhanced_caption`. A case is
named LEVEL_NUMBER, as in `easy_0017`, by `prompt_idx` or, in a file that has none, by the record's
place from 0. Fields read from the repository's result file of the easy level; those of the other
levels' files are taken to be the same. Its edit distances are not normalised: compare within the
group `level` only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from evals.benchmarks.files import DataError, checked, find, fit_name, json_list
from evals.metrics.published import LEX_PNED, LEX_RECALL
from evals.metrics.strict import STRICT
from evals.scoring import Benchmark, Case

WHERE = "the data set X-ART/LeX-Bench on Hugging Face (Apache-2.0)"
LEVELS = ("easy", "medium", "hard")
ATTRIBUTES = ("color", "font", "position")


def _files(path: Path | None) -> dict[str, Path]:
    names = {level: f"lex_bench_{level}.json" for level in LEVELS}
    if path is not None and path.is_file():
        level = next((level for level in LEVELS if level in path.name), None)
        if level is None:
            raise DataError(
                f"{path} has no level in its name; call it {' or '.join(names.values())}"
            )
        return {level: path}
    find(path, tuple(names.values()), WHERE)  # one of them at least
    assert path is not None
    return {level: path / name for level, name in names.items() if (path / name).is_file()}


def _cases(path: Path | None, caption: str) -> Iterator[Case]:
    for level, file in _files(path).items():
        for i, record in enumerate(json_list(file)):
            number = record.name("prompt_idx") if "prompt_idx" in record.fields else f"{i:04}"
            targets = record.strings("text")
            groups = {"level": level, "words": f"{len(targets):02}"}
            if attribute := next((key for key in ATTRIBUTES if key in record.fields), ""):
                groups["attribute"] = attribute
            name = fit_name(f"{level}_{number}")
            yield Case(name, record.string(caption), targets, groups=groups)


def cases(path: Path | None, *, caption: str = "caption") -> list[Case]:
    """The prompts of every level whose file is in the folder, or of the file."""
    return checked(_cases(path, caption), path)


def _benchmark(name: str, caption: str) -> Benchmark:
    return Benchmark(
        name,
        functools.partial(cases, caption=caption),
        (LEX_PNED, LEX_RECALL, *STRICT),
        headline=LEX_RECALL.name,
        where=WHERE,
    )


BENCHMARK = _benchmark("lex", "caption")
BENCHMARK_ENHANCED = _benchmark("lex_enhanced", "enhanced_caption")
