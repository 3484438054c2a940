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

    `packed` speaks of tokens in `Packing`'s order: those of the prefix that are there, then those
    after the prefix, and last those that are not there.

    `pairs` says everything instead, True where a query may look: what no kernel skips a block for.
    """

    causal: bool = dataclasses.field(default=False, metadata={"static": True})
    prefix: int = dataclasses.field(default=0, metadata={"static": True})
    num_present: Int[Array, " B"] | None = None
    packed: bool = dataclasses.field(default=False, metadata={"static": True})
    pairs: Bool[Array, "#B 1 #T S"] | None = None

    def __post_init__(self) -> None:
        if self.num_present is not None and not self.prefix:
            raise ValueError("num_present counts keys of a prefix, and there is none: give prefix")
        if self.packed and self.num_present is None:
            raise ValueError("all tokens are there and stand in order: nothing is packed")

    @property
    def plain(self) -> bool:
        """Whether nothing is said beyond `causal`."""
        return self.pairs is None and not self.prefix

    @property
    def _prefix(self) -> int | Int[Array, "B 1 1"]:
        """How many keys a causal query sees whatever its place."""
        if not self.packed:
            return self.prefix
        assert self.num_present is not None
        return self.num_present[:, None, None]

    def present(self, num_keys: int) -> Bool[Array, "B S"]:
        """True for the keys of each row that are there."""
        assert self.num_present is not None
        keys, count = jnp.arange(num_keys), self.num_present[:, None]
        if self.packed:
            return keys < count + num_keys - self.prefix
        return (keys < count) | (keys >= self.prefix)

    def dense(self, num_queries: int, num_keys: int) -> Bool[Array, "#B 1 #T S"]:
        """The same as a table; a query that could look at nothing looks at itself."""
        if self.pairs is not None:
            return self.pairs
        queries, keys = jnp.arange(num_queries)[:, None], jnp.arange(num_keys)
        seen = jnp.ones((1, num_keys), bool)
        if self.causal:
            seen = (keys <= queries) | (keys < self._prefix)
        if self.num_present is None:
            return seen[None, None]
        seen = seen & self.present(num_keys)[:, None]
        return (seen | (keys == queries) if self.causal else seen)[:, None]


@dataclasses.dataclass(frozen=True)
class Packing:
    """Tokens in another order and back: those of a prefix that are there, then all that come after
    the prefix, then those that are not there. Then a causal kernel with a length for each row
    serves a causal mask after a prefix, and needs no table."""

    there: Int[Array, "B T"]
    back: Int[Array, "B T"]

    @classmethod
    def of(cls, mask: Mask, num_tokens: int) -> Packing:
        """That of a mask with `num_present`."""
        assert mask.num_present is not None
        here, n, rest = jnp.arange(num_tokens), mask.num_present[:, None], num_tokens - mask.prefix
        after = jnp.where(here < n + rest, here - n + mask.prefix, here - rest)
        home = jnp.where(here < mask.prefix, here + rest, here - mask.prefix + n)
        return cls(jnp.where(here < n, here, after), jnp.where(here < n, here, home))

    def pack(self, x: Array) -> Array:
        """[B T ...] in that order."""
        return _taken(x, self.there, self.back)

    def unpack(self, x: Array) -> Array:
        """[B T ...] back in its own."""
        return _taken(x, self.back, self.there)


@jax.custom_vjp
def _taken(x: Array, order: Int[Array, "B T"], inverse: Int[Array, "B T"]) -> Array:
    """Each row's positions in another order; its gradient is taken by the inverse, where JAX would
    add it up place by place."""
    wide = order.reshape(*order.shape, *(1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, wide, axis=1, mode="promise_in_bounds")


_taken.defvjp(
    lambda x, order, inverse: (_taken(x, order, inverse), (order, inverse)),
    lambda orders, pull: (_taken(pull, orders[1], orders[0]), None, None),
)
