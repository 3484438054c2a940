"""Grouped-query attention with rotary positions, an optional QK-norm and an optional cache."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
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
    """Keys and values of one layer, each head's positions together: what a product over one query
    reads from end to end."""

    keys: Float[Array, "B K S H"]
    values: Float[Array, "B K S H"]


Cache = tuple[LayerCache, ...]
"""Of every layer, each an array of its own: a step writes its position in place."""


def write(
    cache: Float[Array, "B K S H"],
    new: Float[Array, "B T K H"],
    at: Int[Array, " B"] | Int[Array, ""],
) -> Float[Array, "B K S H"]:
    """The cache with each row's `new` positions put at its own offset, or all at one."""
    new = new.swapaxes(1, 2).astype(cache.dtype)
    if not at.ndim:
        return jax.lax.dynamic_update_slice(cache, new, (0, 0, at, 0))
    place = jax.vmap(lambda row, fresh, i: jax.lax.dynamic_update_slice(row, fresh, (0, i, 0)))
    return place(cache, new, at)


def read(
    query: Float[Array, "B T N H"], cache: LayerCache, seen: Bool[Array, "#B 1 #T S"]
) -> Float[Array, "B T N H"]:
    """What each query finds in a cache; scores and softmax are float32."""
    B, T, N, H = query.shape
    K = cache.keys.shape[1]
    # queries of a head's group in one: two products of matrices a row and head, as they lie
    grouped = query.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, H)
    keys, values = cache.keys.astype(query.dtype), cache.values.astype(query.dtype)
    wide = {"preferred_element_type": jnp.float32}
    scores = jnp.einsum("BKRH,BKSH->BKRS", grouped, keys, **wide) * H**-0.5
    scores = scores.reshape(B, K, N // K, T, -1)
    scores = jnp.where(seen[:, :, None], scores, jnp.finfo(jnp.float32).min)
    share = jax.nn.softmax(scores, axis=-1).astype(query.dtype).reshape(B, K, -1, keys.shape[2])
    found = jnp.einsum("BKRS,BKSH->BKRH", share, values).reshape(B, K, N // K, T, H)
    return found.transpose(0, 3, 1, 2, 4).reshape(query.shape)


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
        at: Int[Array, " B"] | Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """A table as `mask` is True where a query may look. With a cache the new positions are
        written at `at` first, and the plain kernel reads it."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = rotate(query, rotations), rotate(key, rotations)
        if cache is not None and at is not None:
            cache = LayerCache(write(cache.keys, key, at), write(cache.values, value, at))
            seen = (
                mask.dense(query.shape[1], cache.keys.shape[2]) if isinstance(mask, Mask) else mask
            )
            return self.out(read(query, cache, seen)), cache
        mask = mask if isinstance(mask, Mask) else Mask(pairs=mask)
        return self.out(attend(query, key, value, mask)), cache
