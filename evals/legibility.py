"""How small may type be? Accuracy over the size of the type, for the reader and for each stage."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import isotonic_regression

from evals.attribution import Reads, stage_hits
from evals.facets import Word
from evals.scoring import Score, resamples

READER = "typeset"
Axis = Literal["type_px", "char_px"]
EDGES: dict[str, tuple[float, ...]] = {
    "type_px": (1, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 24, 28, 32, 40, np.inf),
    "char_px": (0.1, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 10, 12, 16, 20, np.inf),
}
KEPT = 0.9  # of the words that the reader reads: what a legible size keeps


@dataclasses.dataclass(frozen=True)
class Bin:
    """The words of `low_px` up to below `high_px`.

    `accuracy` has the share of them that was read exactly after each stage, `kept` the share of
    those that the reader reads on the typeset page (`num_read`) which a stage keeps.
    """

    low_px: float
    high_px: float
    num_words: int
    num_read: int
    accuracy: dict[str, Score]
    kept: dict[str, Score]


def _score(
    parts: Float[np.ndarray, " P"], wholes: Float[np.ndarray, " P"], draws: np.ndarray
) -> Score:
    """A share over all pages and its interval over resampled ones."""
    sums = draws @ wholes
    spread = (draws @ parts)[sums > 0] / sums[sums > 0]
    low, high = np.quantile(spread, (0.025, 0.975))
    return Score(float(parts.sum() / wholes.sum()), float(low), float(high))


def curve(
    words: Sequence[Sequence[Word]],
    reads: Reads,
    *,
    axis: Axis = "type_px",
    edges: Sequence[float] = (),
    seed: int = 0,
) -> list[Bin]:
    """Accuracy after each stage by the size of the type, in pixels of the page; bins without words
    are left out.

    By `type_px`, the em square, since that is what a planner chooses and what `check.findings` can
    warn of; `char_px`, the mean advance of a line's characters, is what a tokenizer with so many
    codes a pixel cares for, and sets narrow typefaces apart from wide ones. Intervals are from
    resampled pages (`scoring.resamples`), since words of a page are lost together. Words whose size
    nobody knows (0) are no part of it. The reader's accuracy is the ceiling: `reads` has to have
    `typeset`.
    """
    if READER not in reads:
        raise ValueError(f"a legibility curve needs what was read of the {READER} pages")
    hits, edges = stage_hits(words, reads), tuple(edges or EDGES[axis])
    places = [np.digitize([getattr(word, axis) for word in page], edges) - 1 for page in words]
    draws = resamples(len(words), seed=seed)

    def counts(place: int, *chosen: list[list[bool]]) -> Float[np.ndarray, " P"]:
        """How many words of each page are in the bin, and hits of all the chosen."""
        pages = zip(places, *chosen, strict=True)
        return np.array(
            [np.logical_and.reduce([at == place, *page]).sum() for at, *page in pages], float
        )

    bins = []
    for place, (low, high) in enumerate(itertools.pairwise(edges)):
        num_words, num_read = counts(place), counts(place, hits[READER])
        if not num_words.any():
            continue
        accuracy = {s: _score(counts(place, hit), num_words, draws) for s, hit in hits.items()}
        kept = {
            stage: _score(counts(place, hits[READER], hit), num_read, draws)
            for stage, hit in hits.items()
            if stage != READER and num_read.any()
        }
        sums = int(num_words.sum()), int(num_read.sum())
        bins.append(Bin(float(low), float(high), *sums, accuracy, kept))
    return bins


def floor_px(curve: Sequence[Bin], stage: str, *, share: float = KEPT) -> float | None:
    """The least size from which on a stage keeps such a share of what the reader reads; None if it
    never does or nothing was read.

    What is kept is first made to rise with the size by isotonic regression, weighted by words
    (Barlow et al. 1972, "Statistical Inference under Order Restrictions"): so a bin of few words
    neither makes nor breaks a floor. The least bin's lower edge means that no floor was found
    within the sizes that were tried. For the reader itself it is the share of all words.
    """
    if stage == READER:
        rows = [(b.low_px, b.accuracy[stage].value, b.num_words) for b in curve]
    else:
        rows = [(b.low_px, b.kept[stage].value, b.num_read) for b in curve if stage in b.kept]
    if not rows:
        return None
    lows, shares, weights = (np.array(column, float) for column in zip(*rows, strict=True))
    rising = isotonic_regression(shares, weights=weights).x
    enough = np.flatnonzero(rising >= share - 1e-9)
    return float(lows[enough[0]]) if enough.size else None
