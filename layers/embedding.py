"""Integers to vectors by table."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from layers.axes import constrain


class Embed(nnx.Module):
    """A table of `vocab_size` vectors; `attend` reuses it as a tied output head."""

    def __init__(self, vocab_size: int, width: int, *, rngs: nnx.Rngs, scale: float = 0.02) -> None:
        table = jax.random.normal(rngs.params(), (vocab_size, width)) * scale
        self.table = nnx.Param(table, axes="VD", summed="D")

    def __call__(self, ids: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        """Rows of the table, which is gathered whole first: the batch shares the mesh axes of its
        D, and a lookup in a sharded table would rematerialise it."""
        return constrain(self.table[...], "__")[ids]

    def attend(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Logits against every row."""
        return jnp.einsum("BTD,VD->BTV", x, self.table[...].astype(x.dtype))
