"""How much of an attention's scores its mask lets through, told to whoever counts the work.

The plain attention multiplies all pairs of queries and keys, also those that a causal mask throws
away; a fused one skips them. Model FLOPs should not depend on the kernel, and a jaxpr does not know
what a mask leaves: the attention says it in the name of a scope, which costs nothing in the
program.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager

import jax

_SCOPE = re.compile(r"visible_(\d\.\d+)")


def visible(causal: bool, *, num_keys: int, prefix: int = 0) -> AbstractContextManager[object]:
    """A scope for the two products of an attention among `num_keys` positions, of which all see the
    first `prefix` and, if `causal`, half of the rest (that half is a convention: with the diagonal
    it is (n + 1) / 2n)."""
    share = 1.0
    if causal:
        first = min(prefix / num_keys, 1.0)
        share = first + (1 - first) ** 2 / 2
    return jax.named_scope(f"visible_{share:.6f}")


def share_of(scopes: str) -> float | None:
    """The share that the innermost scope of a jaxpr's name stack tells; None if none does."""
    found = _SCOPE.findall(scopes)
    return float(found[-1]) if found else None
