"""How a decoder's logits become codes: what it is handed, so that it may ask for the codes of a
position at once or one after another."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sampling.guidance import combine, doubled, halves
from sampling.policy import Policy, choose


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pick:
    """Choices by a policy with one key a page, or one for each of a page's positions.

    Under guidance the logits have twice the rows, told and untold: the choice is from both combined
    and goes to both, so that codes asked for later depend on one and the same.

    It is a tree of arrays, so it passes into jitted functions.
    """

    keys: Array
    policy: Policy = dataclasses.field(default_factory=Policy, metadata={"static": True})
    guidance: float = dataclasses.field(default=1.0, metadata={"static": True})

    def __call__(
        self, logits: Float[Array, "B *T Q V"], depth: Int[Array, ""] | None = None
    ) -> Int[Array, "B *T Q"]:
        """One code for each row of logits. What is picked at different depths is drawn apart."""
        keys = self.keys if depth is None else self.at(depth).keys
        rows = lambda key, row: choose(key, row, self.policy)  # noqa: E731
        for _ in range(keys.ndim):
            rows = jax.vmap(rows)
        chosen = rows(keys, self.combined(logits).astype(jnp.float32))
        return doubled(chosen, chosen, self.guidance)

    def combined(self, logits: Float[Array, "B *T Q V"]) -> Float[Array, "_ *T Q V"]:
        """The logits that are chosen from."""
        if self.guidance == 1:
            return logits
        told, untold = halves(logits)
        return combine(told, untold, self.guidance)

    def at(self, index: Int[Array, ...] | int) -> Pick:
        """The same with `index` folded into every key: one for all, or for each page its
        positions' [B T]."""
        fold, index = jax.random.fold_in, jnp.asarray(index)
        if index.ndim > self.keys.ndim:
            fold = jax.vmap(fold, in_axes=(None, 0))
        for _ in range(self.keys.ndim):
            fold = jax.vmap(fold, in_axes=(0, 0 if index.ndim else None))
        return dataclasses.replace(self, keys=fold(self.keys, index))
