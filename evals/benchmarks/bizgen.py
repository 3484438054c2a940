"""`bizgen_ocr`: the quoted spans of BizGenEval's text prompts, judged by OCR. A variant of ours.

BizGenEval (microsoft/BizGenEval) asks a vision-language judge twenty questions about each of 400
prompts for web pages, slides, posters, charts and scientific figures. Its 100 prompts of dimension
`text` quote what is to stand on the page, up to a thousand characters and more; these spans are the
targets here, and our strict metrics the score. It cannot be compared with published BizGenEval
scores.

By definition the variant has the prompts of that dimension which quote something: 96 of the
published file, not 85, 98, 156 and 159, which list their texts without quotes. A span that the
prompt quotes again is asked for again. Some prompts have texts beyond what they quote, so extra
text and precision mean less here than recall does. A case is named by its `id`. Format read from
the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from blueprint.copying import quoted
from evals.benchmarks.files import checked, find, jsonl
from evals.metrics.strict import STRICT
from evals.scoring import Benchmark, Case

WHERE = "github.com/microsoft/BizGenEval, assets/bizgeneval.jsonl (MIT)"


def _cases(file: Path) -> Iterator[Case]:
    for record in jsonl(file):
        prompt = record.string("prompt")
        targets = quoted(prompt) if record.string("dimension") == "text" else ()
        if targets:
            groups = {"domain": record.string("domain")}
            yield Case(record.name("id"), prompt, targets, groups=groups)


def cases(path: Path | None) -> list[Case]:
    """The text prompts that quote, below the repository, its `assets/`, or in the file."""
    file = find(path, ("bizgeneval.jsonl", "assets/bizgeneval.jsonl"), WHERE)
    return checked(_cases(file), file)


BENCHMARK = Benchmark("bizgen_ocr", cases, STRICT, headline="exact_element_accuracy", where=WHERE)
