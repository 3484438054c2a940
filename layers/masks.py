"""Who may look at whom, said in the few words that a fused kernel understands."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """Query i may look at key j if j is there and, when `causal`, j <= i or j < `prefix`.

    Of the first `prefix` keys only the first `num_present` of a row are there; all others are.
    Where a query is itself not there, what it sees is finite and for nobody to use.

    `pairs` says everything instead, True where a query may look: what no kernel skips a block for.
    """

    causal: bool = dataclasses.field(default=False, metadata={"static": True})
    prefix: int = dataclasses.field(default=0, metadata={"static": True})
    num_present: Int[Array, " B"] | None = None
    pairs: Bool[Array, "#B 1 #T S"] | None = None

    def __post_init__(self) -> None:
        if self.num_present is not None and not self.prefix:
            raise ValueError("num_present counts keys of a prefix, and there is none: give prefix")

    @property
    def plain(self) -> bool:
        """Whether nothing is said beyond `causal`."""
        return self.pairs is None and not self.prefix

    def present(self, num_keys: int) -> Bool[Array, "B S"]:
        """True for the keys of each row that are there."""
        assert self.num_present is not None
        keys = jnp.arange(num_keys)
        return (keys < self.num_present[:, None]) | (keys >= self.prefix)

    def dense(self, num_queries: int, num_keys: int) -> Bool[Array, "#B 1 #T S"]:
        """The same as a table; a query that could look at nothing looks at itself."""
        if self.pairs is not None:
            return self.pairs
        queries, keys = jnp.arange(num_queries)[:, None], jnp.arange(num_keys)
        seen = jnp.ones((1, num_keys), bool)
        if self.causal:
            seen = (keys <= queries) | (keys < self.prefix)
        if self.num_present is None:
            return seen[None, None]
        seen = seen & self.present(num_keys)[:, None]
        return (seen | (keys == queries) if self.causal else seen)[:, None]
