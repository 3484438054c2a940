"""A name for every lost word: the first stage after which it could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from evals.metrics.words import word_hits

STAGES = {
    "typeset": "reader", "reconstructed": "tokenizer",
    "given_blueprint": "decoder", "end_to_end": "planner",
}  # fmt: skip


def attribute(
    targets: Sequence[Sequence[str]], reads: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, int]:
    """Target words by who lost them, and `read` for those that came through; they add up to all of
    them."""
    counts = Counter(dict.fromkeys([*STAGES.values(), "read"], 0))
    for page, words in enumerate(targets):
        hits = {stage: word_hits(words, reads[stage][page]) for stage in STAGES}
        for i in range(len(words)):
            lost = next((who for stage, who in STAGES.items() if not hits[stage][i]), "read")
            counts[lost] += 1
    return dict(counts)
