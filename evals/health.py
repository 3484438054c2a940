"""Is a codebook alive? Numbers from codes alone, and sentences for what is wrong."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

LEAST_USAGE = 0.1  # of the values that uniform draws of as many positions would show
LEAST_PERPLEXITY = 1.5  # of as many values; below it a code says next to nothing


def code_counts(codes: Int[np.ndarray, "B y x Q"], codebook_size: int) -> Int[np.ndarray, "Q V"]:
    """How often each code of a position has each value."""
    flat = codes.reshape(-1, codes.shape[-1])
    return np.stack([np.bincount(column, minlength=codebook_size) for column in flat.T])


def perplexities(counts: Int[np.ndarray, "Q V"]) -> Float[np.ndarray, " Q"]:
    """exp(entropy) of each code, from 1 to V."""
    share = counts / counts.sum(axis=1, keepdims=True)
    return np.exp(-(share * np.log(np.maximum(share, 1e-12))).sum(axis=1))


def code_use(codes: Int[np.ndarray, "B y x Q"], codebook_size: int) -> dict[str, float]:
    """`usage` (share of values that occur) and `perplexity`, averaged over Q, and the least
    perplexity of any code.

    `dead_codes` counts, over all Q, the values that never occur.
    """
    counts = code_counts(codes, codebook_size)
    each = perplexities(counts)
    return {
        "usage": float((counts > 0).mean()),
        "perplexity": float(each.mean()),
        "least_perplexity": float(each.min()),
        "dead_codes": float((counts == 0).sum()),
    }


def alarms(codes: Int[np.ndarray, "B y x Q"], codebook_size: int) -> tuple[str, ...]:
    """A sentence for each way in which the codebook has collapsed; none when it has not."""
    counts = code_counts(codes, codebook_size)
    drawn = counts.sum(axis=1)
    shown = codebook_size * (1 - (1 - 1 / codebook_size) ** drawn)  # by uniform draws, expected
    measures = {
        "usage": ((counts > 0).sum(axis=1) / shown, LEAST_USAGE),
        "perplexity": (perplexities(counts), LEAST_PERPLEXITY),
    }
    return tuple(
        f"the codebook collapsed: of {low.sum()} of {len(values)} codes of a position the {name} "
        f"is below {least} (least {values.min():.3g}); lower the learning rate, set the codebook's "
        "restart_below, raise its entropy terms, or take fsq, which cannot collapse"
        for name, (values, least) in measures.items()
        if (low := values < least).any()
    )
