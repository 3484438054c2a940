"""A name for every lost word: the first stage after which it could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evals.facets import Word
from evals.metrics.words import word_hits

STAGES = {
    "typeset": "reader", "reconstructed": "tokenizer",
    "given_blueprint": "decoder", "end_to_end": "planner",
}  # fmt: skip
CELLS = (*STAGES.values(), "read")
Reads = Mapping[str, Sequence[Sequence[str]]]


def stage_hits(words: Sequence[Sequence[Word]], reads: Reads) -> dict[str, list[list[bool]]]:
    """For each stage that was read, in the order of `STAGES`, which words of each page were read
    exactly; of equal words on a page the first ones count as read.

    Raises `ValueError` for a stage that there is not, and for one without all pages.
    """
    if unknown := sorted(set(reads) - set(STAGES)):
        raise ValueError(f"no stage is called {unknown[0]}; the stages are {', '.join(STAGES)}")
    if not reads:
        raise ValueError(f"no stage was read; give what was read at any of {', '.join(STAGES)}")
    hits = {}
    for stage in (stage for stage in STAGES if stage in reads):
        if len(reads[stage]) != len(words):
            raise ValueError(
                f"{stage} was read on {len(reads[stage])} pages of {len(words)}: hand in an empty "
                "reading for each page that is missing"
            )
        pairs = zip(words, reads[stage], strict=True)
        hits[stage] = [word_hits([w.string for w in page], read) for page, read in pairs]
    return hits


def attribution(words: Sequence[Sequence[Word]], reads: Reads) -> dict[str, Any]:
    """Who lost how many of the pages' target words, as plain JSON.

    `total` has every word in exactly one cell: it belongs to the first stage after which it could
    not be read, even where a later stage's picture says it again, or to `read`. `by` has the same
    counts for each value of each facet. `recovered` says how many of a cell's words a later stage
    did show again: the share of luck, and of the planner's larger type. A stage that was not read
    loses nothing; its losses show at the next one that was.
    """
    hits = stage_hits(words, reads)
    empty = dict.fromkeys(CELLS, 0)
    total, recovered = Counter(empty), Counter(dict.fromkeys(CELLS[:-2], 0))
    by: dict[str, dict[str, Counter]] = {}
    for page, row in enumerate(words):
        for i, word in enumerate(row):
            seen = [(STAGES[stage], hits[stage][page][i]) for stage in hits]
            lost = next((place for place, (_, hit) in enumerate(seen) if not hit), None)
            who = "read" if lost is None else seen[lost][0]
            total[who] += 1
            if lost is not None and any(hit for _, hit in seen[lost + 1 :]):
                recovered[who] += 1
            for facet, value in word.facets.items():
                by.setdefault(facet, {}).setdefault(value, Counter(empty))[who] += 1
    tables = {
        facet: {value: dict(counts) for value, counts in sorted(values.items())}
        for facet, values in sorted(by.items())
    }
    return {"total": dict(total), "by": tables, "recovered": dict(recovered)}
