"""How strings are paired with what was read: the pure functions that the scores are made of."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Float
from rapidfuzz.distance import Indel, Levenshtein
from rapidfuzz.process import cdist
from scipy.optimize import linear_sum_assignment

MISSPELT = 0.5  # edits over the longer length up to which a read word is a wanted one, misspelt


def edit_costs(wanted: Sequence[str], read: Sequence[str]) -> Float[np.ndarray, "W R"]:
    """Edit distance over the longer length, of each wanted word and each read one; 0 for two
    empty ones."""
    if not wanted or not read:
        return np.zeros((len(wanted), len(read)))
    return cdist(wanted, read, scorer=Levenshtein.normalized_distance, dtype=np.float64)


def cheapest_pairing(costs: Float[np.ndarray, "W R"]) -> float:
    """The least sum of costs that pairs as many as there are on the shorter side, plus 1 for each
    left over on the longer: LeX-Bench's PNED, when the costs are `edit_costs`."""
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].sum()) + abs(costs.shape[0] - costs.shape[1])


def num_near(costs: Float[np.ndarray, "W R"], within: float) -> int:
    """How many wanted words find a read one at a cost of at most `within`: each takes the first
    that is left, as LeX-Bench's recall does."""
    left = np.ones(costs.shape[1], bool)
    found = 0
    for near in costs <= within:
        free = np.flatnonzero(near & left)
        if free.size:
            left[free[0]] = False
            found += 1
    return found


@functools.lru_cache(maxsize=1 << 16)
def _block_ratio(word: str, candidate: str) -> float:
    return difflib.SequenceMatcher(None, candidate, word).ratio()


def nearest_by_blocks(word: str, read: Collection[str]) -> str:
    """The read word that `difflib.get_close_matches(word, read, n=1, cutoff=0)` gives, of two
    equally near ones the later in the alphabet; the word itself if it was read.

    Its blocks are a common subsequence, so the longest of these bounds its ratio: most candidates
    are never compared.
    """
    if word in read:
        return word
    candidates = list(read)
    lengths = len(word) + np.fromiter(map(len, candidates), int)
    edits = cdist([word], candidates, scorer=Indel.distance, dtype=np.int32)[0]
    bounds = (lengths - edits) / np.maximum(lengths, 1)
    best, nearest = -1.0, ""
    for i in np.argsort(-bounds, kind="stable"):
        if bounds[i] < best:
            break
        best, nearest = max((best, nearest), (_block_ratio(word, candidates[i]), candidates[i]))
    return nearest


def path_distance(wanted: str, read: str) -> float:
    """Edits over the steps of the edit path, kept characters included; 0 for two empty strings.

    Of several shortest paths it is the one that rapidfuzz traces, as it is in STRICT's evaluator.
    """
    edits = Levenshtein.editops(wanted, read)
    steps = len(wanted) + sum(edit.tag == "insert" for edit in edits)
    return len(edits) / steps if steps else 0.0


def similarity(wanted: str, read: str) -> float:
    """1 minus edits over the longer length (and 1e-5, with which AnyText and CVTG keep it from
    0)."""
    longer = max(len(wanted), len(read))
    return 1 - Levenshtein.distance(wanted, read) / (longer + 1e-5)
