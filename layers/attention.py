"""Grouped-query attention with rotary positions, an optional QK-norm and an optional cache."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from layers.einsum import Einsum
from layers.kernels import attend
from layers.masks import Mask
from layers.norm import RMSNorm
from layers.rope import rotate


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer (or of L stacked ones, with a leading axis)."""

    keys: Float[Array, "*L B S K H"]
    values: Float[Array, "*L B S K H"]


def write(
    cache: Float[Array, "B S K H"], new: Float[Array, "B T K H"], at: Int[Array, " B"]
) -> Float[Array, "B S K H"]:
    """The cache with each row's `new` positions put at its own offset."""
    place = jax.vmap(lambda row, fresh, i: jax.lax.dynamic_update_slice(row, fresh, (i, 0, 0)))
    return place(cache, new.astype(cache.dtype), at)


class Attention(nnx.Module):
    """softmax(q k^T / sqrt(H)) v with N query heads over K shared key/value heads (Ainslie et al.
    2023)."""

    def __init__(
        self,
        sizes: dict[str, int],
        *,
        rngs: nnx.Rngs,
        qk_norm: bool = False,
        scale: float = 1.0,
        eps: float = 1e-6,
    ) -> None:
        self.query = Einsum("BTD,DNH->BTNH", sizes, rngs=rngs)
        self.key = Einsum("BTD,DKH->BTKH", sizes, rngs=rngs)
        self.value = Einsum("BTD,DKH->BTKH", sizes, rngs=rngs)
        self.out = Einsum("BTNH,NHD->BTD", sizes, rngs=rngs, scale=scale)
        self.query_norm = RMSNorm(sizes["H"], axis="H", eps=eps) if qk_norm else None
        self.key_norm = RMSNorm(sizes["H"], axis="H", eps=eps) if qk_norm else None

    def __call__(
        self,
        x: Float[Array, "B T D"],
        rotations: tuple[Array, Array],
        mask: Mask | Bool[Array, "#B 1 #T S"],
        *,
        cache: LayerCache | None = None,
        at: Int[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """A table as `mask` is True where a query may look. With a cache the new positions are
        written at `at` first, and the plain kernel reads it."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = rotate(query, rotations), rotate(key, rotations)
        if cache is not None and at is not None:
            cache = LayerCache(write(cache.keys, key, at), write(cache.values, value, at))
            key, value = cache.keys.astype(x.dtype), cache.values.astype(x.dtype)
        mask = mask if isinstance(mask, Mask) else Mask(pairs=mask)
        kernel = "" if cache is None else "xla"
        return self.out(attend(query, key, value, mask, kernel=kernel)), cache
