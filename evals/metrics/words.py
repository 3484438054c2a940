"""Words as they are compared, and what of them came out."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from rapidfuzz.distance import Levenshtein

_FOLDED = str.maketrans(
    {**dict.fromkeys("‐‑‒–—―−", "-"), **dict.fromkeys("‘’‚‛ʼ′", "'"), **dict.fromkeys("“”„‟", '"')}
)


@functools.lru_cache(maxsize=1 << 15)  # a page's strings are asked for by every metric
def normalise(string: str) -> str:
    """NFKC, with dashes, quotes and runs of blanks folded; case and punctuation stay."""
    return " ".join(unicodedata.normalize("NFKC", string).translate(_FOLDED).split())


def words_of(strings: Sequence[str], language: str = "en") -> list[str]:
    """The words of strings, normalised: what stands between blanks or, in zh, every character."""
    return list(_words_of(tuple(strings), language))


@functools.lru_cache(maxsize=1 << 12)
def _words_of(strings: tuple[str, ...], language: str) -> tuple[str, ...]:
    if language == "zh":
        return tuple(c for string in strings for c in normalise(string) if c != " ")
    return tuple(word for string in strings for word in normalise(string).split(" ") if word)


def word_hits(targets: Sequence[str], read: Sequence[str]) -> list[bool]:
    """For each target word, whether it was read exactly, case included; each read word counts
    once."""
    left = Counter(word for string in read for word in normalise(string).split())
    hits = []
    for word in map(normalise, targets):
        hits.append(left[word] > 0)
        left[word] -= left[word] > 0
    return hits


def word_accuracy(targets: Sequence[Sequence[str]], reads: Sequence[Sequence[str]]) -> float:
    """Share of all target words of all pages that were read exactly; 1 when there are none."""
    hits = [h for t, r in zip(targets, reads, strict=True) for h in word_hits(t, r)]
    return sum(hits) / len(hits) if hits else 1.0


def character_error_rate(targets: Sequence[str], reads: Sequence[str]) -> float:
    """Edits a target character, over all strings together; 0 when there are no characters."""
    total = sum(map(len, targets))
    return sum(map(Levenshtein.distance, targets, reads)) / total if total else 0.0


def num_shared(wanted: Iterable[str], read: Iterable[str]) -> int:
    """The size of the intersection of two multisets: each read word counts once."""
    return (Counter(wanted) & Counter(read)).total()
