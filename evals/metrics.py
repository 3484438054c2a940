"""Scores as pure functions: of words and of pixels."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from skimage.metrics import structural_similarity

_FOLDED = str.maketrans("‐‑‒–—−‘’“”", "------''\"\"")


def normalise(string: str) -> str:
    """NFKC, with dashes, quotes and runs of blanks folded; case and punctuation stay."""
    return " ".join(unicodedata.normalize("NFKC", string).translate(_FOLDED).split())


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


def word_precision(targets: Sequence[Sequence[str]], reads: Sequence[Sequence[str]]) -> float:
    """Share of all read words that were asked for; what recall-only scores forgive, this does
    not."""
    hits = sum(sum(word_hits(t, r)) for t, r in zip(targets, reads, strict=True))
    read = sum(len(normalise(s).split()) for r in reads for s in r)
    return hits / read if read else 1.0


def edits(a: str, b: str) -> int:
    """The fewest insertions, deletions and substitutions that turn one into the other (Levenshtein
    1966)."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
            diagonal, row[j] = row[j], best
    return row[-1]


def character_error_rate(targets: Sequence[str], reads: Sequence[str]) -> float:
    """Edits a target character, over all strings together; 0 when there are no characters."""
    total = sum(map(len, targets))
    return sum(map(edits, targets, reads)) / total if total else 0.0


def psnr_db(a: UInt8[np.ndarray, "B Y X C"], b: UInt8[np.ndarray, "B Y X C"]) -> float:
    """Peak signal-to-noise ratio over all pages together; infinite for equal ones."""
    error = np.mean(np.square(a.astype(np.float64) - b))
    return float(10 * np.log10(255.0**2 / error)) if error else float("inf")


def ssim(a: UInt8[np.ndarray, "B Y X C"], b: UInt8[np.ndarray, "B Y X C"]) -> float:
    """Structural similarity (Wang et al. 2004), averaged over pages."""
    pairs = zip(a, b, strict=True)
    return float(np.mean([structural_similarity(x, y, channel_axis=-1) for x, y in pairs]))
