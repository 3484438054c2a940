"""Integers to vectors by table."""

from __future__ import annotations

import jax
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from layers.axes import current_rules, partition_spec
from layers.einsum import product


def lookup(table: Float[Array, "V D"], ids: Int[Array, "*B"]) -> Float[Array, "*B D"]:
    """Rows of a table that may lie in pieces, for ids that lie by B. Each device gathers the table
    and looks up its own ids; backwards it adds up its own gradient and keeps the sum of its piece.

    Left to the partitioner, a table whose D shares the batch's mesh axes is rematerialised, or its
    gradient summed whole over all devices.
    """
    mesh, rules = jax.sharding.get_abstract_mesh(), current_rules()
    sizes = {} if mesh.empty or not ids.ndim else dict(mesh.shape)
    pieces = partition_spec("VD", table.shape, rules, sizes)
    if not any(pieces):
        return table[ids]
    rows = partition_spec("B" + "_" * (ids.ndim - 1), ids.shape, rules, sizes)

    def own(piece: Array, ids: Array) -> Array:
        for dimension, axes in enumerate(pieces):
            if axes:
                piece = jax.lax.all_gather(piece, axes, axis=dimension, tiled=True)
        return piece[ids]

    specs = {"in_specs": (pieces, rows), "out_specs": PartitionSpec(*rows, None)}
    return jax.shard_map(own, **specs, check_vma=False)(table, ids)


class Embed(nnx.Module):
    """A table of `vocab_size` vectors; `attend` reuses it as a tied output head."""

    def __init__(self, vocab_size: int, width: int, *, rngs: nnx.Rngs, scale: float = 0.02) -> None:
        table = jax.random.normal(rngs.params(), (vocab_size, width)) * scale
        self.table = nnx.Param(table, axes="VD", summed="D")

    def __call__(self, ids: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        """Rows of the table."""
        return lookup(self.table[...], ids)

    def attend(self, x: Float[Array, "B T D"], *, inner: str = "") -> Float[Array, "B T V"]:
        """Logits against every row; `inner` as an `Einsum`'s."""
        return product("BTD,VD->BTV", x, self.table[...], inner=inner)
