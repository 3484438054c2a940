"""Grouped-query attention with rotary positions, an optional QK-norm and an optional cache,
which may be kept in fewer bits."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int8, Num

from layers.axes import constrain
from layers.einsum import Einsum
from layers.kernels import attend
from layers.masks import Mask
from layers.norm import RMSNorm
from layers.rope import rotate

CACHE_DTYPES = ("float32", "bfloat16", "int8")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Storage:
    """What numbers a cache keeps, one of `CACHE_DTYPES`, or the layers' own for "", and how many
    positions to spare it has: a matter of generation, not of the model.

    A tree without arrays, so that a jitted function that takes one is compiled for each, which a
    variable of the context would not see to. Raises `ValueError` for an unknown one.
    """

    dtype: str = dataclasses.field(default="", metadata={"static": True})
    spare: int = dataclasses.field(default=0, metadata={"static": True})

    def __post_init__(self) -> None:
        if self.dtype and self.dtype not in CACHE_DTYPES:
            known = ", ".join(CACHE_DTYPES)
            raise ValueError(f"cache {self.dtype!r} is not known; there is: {known}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer, each head's positions together: what a product over one query
    reads from end to end.

    XLA's products over few queries and cuDNN's attention (as `BNTH`) want it so on GPUs, and the
    paged kernel of TPUs has heads before positions too; `jax.nn.dot_product_attention`, which takes
    `BSKH`, would have each head's positions apart. Of int8, a position of a head is its numbers
    times its scale.

    XLA widens a narrow cache while it reads it on GPUs and TPUs. On CPUs it makes a wide copy of
    the layer's first, so that a narrow one there saves memory and takes longer.
    """

    keys: Float[Array, "B K S H"] | Int8[Array, "B K S H"]
    values: Float[Array, "B K S H"] | Int8[Array, "B K S H"]
    key_scales: Float[Array, "B K S 1"] | None = None
    value_scales: Float[Array, "B K S 1"] | None = None

    @classmethod
    def empty(cls, shape: tuple[int, int, int, int], dtype: str) -> LayerCache:
        """Zeros of a shape [B K S H]."""

        def zeros(shape: tuple[int, ...], dtype: str) -> Array:
            return constrain(jnp.zeros(shape, dtype), "BKSH")

        cache = cls(zeros(shape, dtype), zeros(shape, dtype))
        if dtype != "int8":
            return cache
        scales = (zeros((*shape[:3], 1), "float32") for _ in range(2))
        return cls(cache.keys, cache.values, *scales)

    def written(
        self,
        key: Float[Array, "B T K H"],
        value: Float[Array, "B T K H"],
        at: Int[Array, " B"] | Int[Array, ""],
    ) -> LayerCache:
        """With new positions put at each row's own offset, or all at one."""
        if self.key_scales is None or self.value_scales is None:
            return LayerCache(write(self.keys, key, at), write(self.values, value, at))
        (key, of_key), (value, of_value) = narrowed(key), narrowed(value)
        return LayerCache(
            write(self.keys, key, at), write(self.values, value, at),
            write(self.key_scales, of_key, at), write(self.value_scales, of_value, at),
        )  # fmt: skip


Cache = tuple[LayerCache, ...]
"""Of every layer, each an array of its own: a step writes its position in place."""


def narrowed(x: Float[Array, "*B H"]) -> tuple[Int8[Array, "*B H"], Float[Array, "*B 1"]]:
    """The nearest of 255 levels, and what they are to be multiplied by; the largest number of each
    row is kept to the float32."""
    x = x.astype(jnp.float32)
    scale = jnp.abs(x).max(axis=-1, keepdims=True) / 127
    levels = jnp.round(x / jnp.maximum(scale, jnp.finfo(jnp.float32).tiny))
    return levels.astype(jnp.int8), scale


def write(
    cache: Num[Array, "B K S H"],
    new: Num[Array, "B T K H"],
    at: Int[Array, " B"] | Int[Array, ""],
) -> Num[Array, "B K S H"]:
    """The cache with each row's `new` positions put at its own offset, or all at one."""
    new = new.swapaxes(1, 2).astype(cache.dtype)
    if not at.ndim:
        return constrain(jax.lax.dynamic_update_slice(cache, new, (0, 0, at, 0)), "BKSH")
    place = jax.vmap(lambda row, fresh, i: jax.lax.dynamic_update_slice(row, fresh, (0, i, 0)))
    return constrain(place(cache, new, at), "BKSH")


def read(
    query: Float[Array, "B T N H"], cache: LayerCache, seen: Bool[Array, "#B 1 #T S"]
) -> Float[Array, "B T N H"]:
    """What each query finds in a cache; scores and softmax are float32. Scales stay outside of the
    products: the keys' go over the scores, the values' over what the softmax made of them."""
    B, T, N, H = query.shape
    K = cache.keys.shape[1]
    # queries of a head's group in one: two products of matrices a row and head, as they lie
    grouped = query.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, H)
    keys, values = cache.keys.astype(query.dtype), cache.values.astype(query.dtype)
    wide = {"preferred_element_type": jnp.float32}
    scores = jnp.einsum("BKRH,BKSH->BKRS", grouped, keys, **wide) * H**-0.5
    if cache.key_scales is not None:
        scores = scores * cache.key_scales[:, :, None, :, 0]
    scores = scores.reshape(B, K, N // K, T, -1)
    scores = jnp.where(seen[:, :, None], scores, jnp.finfo(jnp.float32).min)
    share = jax.nn.softmax(scores, axis=-1).reshape(B, K, -1, keys.shape[2])
    if cache.value_scales is not None:
        share = share * cache.value_scales[:, :, None, :, 0]
    share = share.astype(query.dtype)
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
            cache = cache.written(key, value, at)
            seen = (
                mask.dense(query.shape[1], cache.keys.shape[2]) if isinstance(mask, Mask) else mask
            )
            return self.out(read(query, cache, seen)), cache
        mask = mask if isinstance(mask, Mask) else Mask(pairs=mask)
        return self.out(attend(query, key, value, mask)), cache
