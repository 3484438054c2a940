"""Pages printed by a decoder of random order, a group of positions at a time, with a cache.

Slots are positions in the order in which they are printed: slot 0 is the first. A pass over the
trunk has two halves, as in training: the codes of the group before, whose keys and values stay in
the cache, and the queries of this group, whose own are written after them and over again by the
next pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from decoder.depth import Pick
from decoder.model import BY_POSITION, Decoder
from decoder.sight import raster, sight
from layers.attention import Cache, Storage
from layers.block import Layers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Galley:
    """Pages being printed: keys and values of letters and codes so far, and of each slot how it is
    turned, which letters it may look at, and what is told of it; and how many positions a pass
    prints."""

    cache: Cache
    turn: tuple[Float[Array, "B T 1 P"], Float[Array, "B T 1 P"]]
    of_letters: Bool[Array, "B T S"]
    told: dict[str, Array]
    layers: Layers
    size: int = dataclasses.field(metadata={"static": True})


def _slots(array: Array, index: Int[Array, "B T"]) -> Array:
    """The rows of the second axis at each page's own indices."""
    index = index.reshape(*index.shape, *(1,) * (array.ndim - 2))
    return jnp.take_along_axis(array, index, axis=1)


def lay_out(
    model: Decoder,
    codes: Int[Array, "B y x Q"],
    num_known: Int[Array, " B"],
    rank: Int[Array, "B T"],
    conditions: Mapping[str, Array],
    storage: Storage,
) -> Galley:
    """A galley with its letters read, and the codes of the first `num_known` slots if any page has
    some. The cache has to spare twice as many positions as a pass may print."""
    B, y, x, Q = codes.shape
    T, extra = y * x, storage.spare
    raster_told, order = model.flat(conditions, T), jnp.argsort(rank, axis=1)
    told = {n: _slots(a, order) if n in BY_POSITION else a for n, a in raster_told.items()}
    S = told["letters"].shape[1]
    turn = model.turn(raster_told, B, (y, x))
    first, rest = (tuple(f(part) for part in turn) for f in (
        lambda part: part[:, :S], lambda part: _slots(part[:, S:], order),
    ))  # fmt: skip
    locked = model.config.conditioning.lock_regions
    seen = sight(told, (y, x), causal=True, locked=locked)[:, 0]
    of_letters = _slots(seen[:, S:, :S], order)
    cache = model.config.blocks.empty_cache(B, S + T, storage)
    at = jnp.zeros((B,), jnp.int32)
    none = jnp.zeros((B, S, T + extra), bool)
    mask = jnp.concatenate([seen[:, :S, :S], none], axis=-1)[:, None]
    _, cache = model.blocks.go_on(model.mixed(model.letters(told)), first, mask, cache, at)

    def with_known(cache: Cache) -> Cache:
        known = _slots(codes.reshape(B, T, Q), order)
        tokens = model.mixed(model.page(model.codes(known), told))
        before = jnp.broadcast_to(jnp.pad(raster(T), ((0, 0), (0, extra))), (B, T, T + extra))
        mask = jnp.concatenate([of_letters, before], axis=-1)[:, None]
        return model.blocks.go_on(tokens, rest, mask, cache, at + S)[1]

    cache = jax.lax.cond((num_known > 0).any(), with_known, lambda cache: cache, cache)
    layers = model.blocks.unstacked()
    layers, cache = model.blocks.packed(layers, cache, B * (extra or T))
    return Galley(cache, rest, of_letters, told, layers, extra // 2)


def advance(
    model: Decoder,
    at: Int[Array, " B"],
    now: Int[Array, " B"],
    before: Int[Array, "B R Q"],
    galley: Galley,
    pick: Pick,
) -> tuple[Int[Array, "B G Q"], Float[Array, "B G Q V"], Galley]:
    """The codes of the slots from `now` on, given those before `now`, the logits that `pick` chose
    them from and the galley with the codes up to `now`.

    `before` are the codes from slot `at` on; those from `now` on are not looked at, nor is what
    comes for slots past the last one of use. Without any `before` as many are printed as there are
    slots, and the galley stays as it was; else as many as it says.
    """
    R, T = before.shape[1], galley.of_letters.shape[1]
    G = galley.size if R else T
    steps = [at[:, None] + jnp.arange(R), now[:, None] + jnp.arange(G)]
    slots = jnp.concatenate(steps, axis=1)
    slots = jnp.minimum(slots, T - 1)
    told = {n: _slots(a, slots) if n in BY_POSITION else a for n, a in galley.told.items()}
    seen = model.codes(before)
    blank = jnp.broadcast_to(model.blank, (len(seen), G, *model.blank.shape))
    tokens = model.mixed(model.page(jnp.concatenate([seen, blank], axis=1), told))
    turn = tuple(_slots(part, slots) for part in galley.turn)
    S, cache = galley.of_letters.shape[2], galley.cache
    if not R:  # nobody looks at what the queries leave, so it may stand behind all
        wider = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, G), (0, 0)))  # noqa: E731
        cache, at = jax.tree.map(wider, cache), jnp.full_like(at, T)
    places = jnp.arange(cache[0].keys.shape[2] - S)
    own = (at[:, None] + jnp.arange(R + G))[..., None]
    not_after = places <= own[:, :R]
    earlier = (places < now[:, None, None]) | (places == own[:, R:])
    of_codes = jnp.concatenate([not_after, earlier], axis=1)
    mask = jnp.concatenate([_slots(galley.of_letters, slots), of_codes], axis=-1)[:, None]
    tokens, cache = model.blocks.go_on(tokens, turn, mask, cache, at + S, layers=galley.layers)
    asked = {n: a[:, R:] for n, a in told.items() if n in BY_POSITION}
    codes, logits = model.choose(model.norm(tokens[:, R:]), asked, pick)
    return codes, logits, dataclasses.replace(galley, cache=cache if R else galley.cache)
