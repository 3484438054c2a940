"""STRICT (tianyu-z/STRICT-Bench): the first characters of Wikipedia's articles as a typed page, in
English, French and Chinese, ever longer.

Read is `text_data/fulldata.json` (or another of its shape, given as the file): lists of
`{rowid, text}` by language, 30, 20 and 20 documents. A case is named LANGUAGE_ROWID_LENGTH, as in
`en_989186_50`; the benchmark's own picture is `{model}_{length}/{language}/{rowid}.png`. `LENGTHS`
in characters: the paper goes from 5 to 5,000, its script has only 5; the steps between are ours. A
length past a document's end is not asked for: every published document has more than 5,000
characters. French cases have `language="en"`, for their words stand between blanks too.

The file is not called `strict.py`: in this project that is the name of our own metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evals.benchmarks.files import Record, checked, find, fit_name, json_record
from evals.metrics.published import STRICT_CER, STRICT_NED, STRICT_WER
from evals.metrics.strict import STRICT
from evals.scoring import Benchmark, Case

WHERE = "github.com/tianyu-z/STRICT-Bench, text_data/fulldata.json (no licence stated)"
LENGTHS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
LANGUAGES = {"en": "en", "fr": "en", "zh": "zh"}
PROMPT = "Produce an image of a typed document page with the following text: "  # the benchmark's


def _document_cases(record: Record, language: str) -> Iterator[Case]:
    document, row = record.string("text"), record.name("rowid")
    if len(document) < LENGTHS[0]:
        raise record.wrong(f"has a `text` of less than {LENGTHS[0]} characters")
    for length in (n for n in LENGTHS if n <= len(document)):
        begun = document[:length]
        if not begun.strip():
            raise record.wrong(f"has a `text` that begins with {length} blanks")
        yield Case(
            fit_name(f"{language}_{row}_{length}"),
            PROMPT + begun,
            (begun,),
            groups={"language": language, "length": f"{length:04}"},
            language=LANGUAGES[language],
        )


def _cases(file: Path) -> Iterator[Case]:
    languages = json_record(file)
    for language in languages.fields:
        if language not in LANGUAGES:
            raise languages.wrong(f"has a language {language!r} that is not en, fr or zh")
        for record in languages.records(language):
            yield from _document_cases(record, language)


def cases(path: Path | None) -> list[Case]:
    """Every document at every length, below the repository, its `text_data/`, or of the file."""
    file = find(path, ("fulldata.json", "text_data/fulldata.json"), WHERE)
    return checked(_cases(file), file)


BENCHMARK = Benchmark(
    "strict",
    cases,
    (STRICT_NED, STRICT_CER, STRICT_WER, *STRICT),
    headline=STRICT_NED.name,
    where=WHERE,
)
