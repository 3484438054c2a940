"""A block over few tokens in five calls: each reads its kernels once, with all cores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from layers.attention import Cache, LayerCache, read, write
from layers.masks import Mask
from layers.native.rows import Panels, attend, can_serve, heads_fit, panels, products, settled
from layers.norm import RMSNorm
from layers.rope import rotate

if TYPE_CHECKING:
    from layers.block import Block, BlockConfig
    from layers.einsum import Einsum

_KERNELS = {
    "attention": ("query", "key", "value", "out"),
    "mlp": ("gate", "up", "down"),
}


def packed(
    block: Block, layers: tuple[Any, ...], cache: Cache, num_rows: int, config: BlockConfig
) -> tuple[tuple[Any, ...], Cache]:
    """The `layers` of a stack with panels for kernels, and their cache where it is read fastest, if
    steps of so many rows are to run by `step`; else as they are, as with a cache of other numbers
    than float32. `block` has the stack's arrays. Made once, before a loop over tokens."""
    sizes = config.sizes
    per_width = 2 * (sizes["N"] + sizes["K"]) * sizes["H"] + 3 * sizes["F"]
    wide = all(array.dtype == jnp.float32 for array in jax.tree.leaves(cache))
    if not wide or not can_serve(num_rows, sizes["D"] * per_width, config.dtype):
        return layers, cache
    halves = {half: getattr(block, half) for half in _KERNELS}

    def one(i: int) -> dict[str, Any]:
        made = dict(layers[i])
        for half, names in _KERNELS.items():
            linear = {name: getattr(halves[half], name) for name in names}
            own = {name: {"kernel": of(einsum, layer=i)} for name, einsum in linear.items()}
            made[half] = {**layers[i][half], **own}
        return made

    return tuple(one(i) for i in range(len(layers))), settled(cache)


def of(linear: Einsum, *, layer: int | None = None) -> Panels:
    """A linear map's kernel as panels, or that of one layer: its letters that are summed away come
    first."""
    inputs, output = linear.equation.split("->")
    num_summed = sum(letter not in output for letter in inputs.split(",")[1])
    return panels(linear.kernel[...], num_summed, layer)


def is_packed(block: Block) -> bool:
    """Whether a block has what `step` reads."""
    return isinstance(block.mlp.down.kernel[...], Panels)


def step(
    block: Block,
    x: Float[Array, "B T D"],
    rotations: tuple[Array, Array],
    mask: Mask | Bool[Array, "#B 1 #T S"],
    cache: LayerCache,
    at: Int[Array, " B"] | Int[Array, ""],
) -> tuple[Float[Array, "B T D"], LayerCache]:
    """What the block gives, with its kernels as panels."""
    own, mlp = block.attention, block.mlp
    kernels = lambda *maps: [one.kernel[...] for one in maps]  # noqa: E731
    norm = lambda one: (one.scale[...], one.eps)  # noqa: E731
    S = cache.keys.shape[2]
    seen = mask.dense(x.shape[1], S) if isinstance(mask, Mask) else mask
    projected = products(x, kernels(own.query, own.key, own.value), norm=norm(block.attention_norm))
    found, cache = _looked(own, projected, rotations, seen, cache, at)
    flat = found.reshape(*x.shape[:2], math.prod(found.shape[2:]))
    x = products(flat, kernels(own.out), residual=x)[0]
    hidden = products(x, kernels(mlp.gate, mlp.up), norm=norm(block.mlp_norm), gated=True)[0]
    return products(hidden, kernels(mlp.down), residual=x)[0], cache


def _looked(own: Any, projected: Any, rotations: Any, seen: Any, cache: LayerCache, at: Any) -> Any:
    """What the queries find, and the cache with the new keys and values."""
    query, key, value = projected
    norms: tuple[RMSNorm | None, RMSNorm | None] = own.query_norm, own.key_norm
    if heads_fit(query.shape[-1]):
        of_query, of_key = (None if one is None else one.scale[...] for one in norms)
        told = of_query, of_key, norms[0].eps if norms[0] else 0.0
        found, *kept = attend(
            (query, key, value), rotations, told, seen, (cache.keys, cache.values), at
        )
        return found, LayerCache(*kept)
    if norms[0] is not None and norms[1] is not None:
        query, key = norms[0](query), norms[1](key)
    query, key = rotate(query, rotations), rotate(key, rotations)
    cache = LayerCache(write(cache.keys, key, at), write(cache.values, value, at))
    return read(query, cache, seen), cache
