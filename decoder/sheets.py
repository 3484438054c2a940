"""Pages printed by a causal decoder, position by position in raster order, with a cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from decoder.depth import Pick
from decoder.model import BY_POSITION, Decoder
from layers.attention import Cache, Storage
from layers.block import Layers
from layers.native.rows import Panels


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sheet:
    """Pages being printed code by code: keys and values of letters or captions and of codes so far,
    how each token is turned, whom it may look at, the conditions with their positions in raster
    order, and the weights as a step reads them."""

    cache: Cache
    turn: tuple[Float[Array, "B T 1 P"], Float[Array, "B T 1 P"]]
    mask: Bool[Array, "#B 1 #T T"]
    told: dict[str, Array]
    layers: Layers
    head: Panels | None


def prefill(
    model: Decoder,
    codes: Int[Array, "B y x Q"],
    conditions: Mapping[str, Array],
    storage: Storage = Storage(),  # noqa: B008  # a frozen value
) -> Sheet:
    """A causal decoder's blank sheet, its letters read. Only the shape of `codes` is used."""
    B, y, x, _ = codes.shape
    told = model.flat(conditions, y * x)
    turn, mask = model.turn(told, B, (y, x)), model.sight(told, (y, x))
    num_tokens = mask.shape[-1]
    cache = model.config.blocks.empty_cache(B, num_tokens, storage)
    layers = model.blocks.unstacked()
    prefix = num_tokens - y * x
    for tokens in model.before(told):
        first = tuple(part[:, :prefix] for part in turn)
        seen, at = mask[:, :, :prefix], jnp.zeros((), jnp.int32)
        _, cache = model.blocks.go_on(model.mixed(tokens), first, seen, cache, at, layers=layers)
    layers, cache = model.blocks.packed(layers, cache, B)
    return Sheet(cache, turn, mask, told, layers, model.packed_head(B))


def step(
    model: Decoder,
    at: Int[Array, ""],
    before: Int[Array, "B Q"],
    sheet: Sheet,
    pick: Pick,
) -> tuple[Int[Array, "B Q"], Float[Array, "B Q V"], Sheet]:
    """The codes of the position `at` in raster order, the logits that `pick` chose them from and
    the sheet with what was before; `before` are the codes of the position before, which are not
    looked at when there is none.

    Steps are to be taken in order, since each fills in its own part of the cache.
    """
    B = before.shape[0]
    prefix = model.num_before(sheet.told)
    here = lambda x, i, axis=1: jax.lax.dynamic_slice_in_dim(x, i, 1, axis)  # noqa: E731
    told = {n: here(x, at) if n in BY_POSITION else x for n, x in sheet.told.items()}
    page = jnp.where(at == 0, model.start(told, B), model.codes(before[:, None]))
    tokens = model.mixed(model.page(page, told))
    turn = tuple(here(part, prefix + at) for part in sheet.turn)
    mask = here(sheet.mask, prefix + at, 2)
    tokens, cache = model.blocks.go_on(
        tokens, turn, mask, sheet.cache, prefix + at, layers=sheet.layers
    )
    codes, logits = model.choose(model.norm(tokens), told, pick, head=sheet.head)
    return codes[:, 0], logits[:, 0], dataclasses.replace(sheet, cache=cache)


def look_ahead(
    model: Decoder,
    at: Int[Array, " B"],
    before: Int[Array, "B W Q"],
    sheet: Sheet,
    pick: Pick,
) -> tuple[Int[Array, "B W Q"], Float[Array, "B W Q V"], Sheet]:
    """`step` for a window of positions, each page's from its own `at` on: as many have to be left.

    The codes of a position are those of `step` if all of `before` up to it are. The window's part
    of the cache is written anew, so that windows may be taken again with other codes.
    """
    B, W, _ = before.shape
    prefix, places = model.num_before(sheet.told), at[:, None] + jnp.arange(W)
    own = lambda x, index: jax.vmap(lambda row, i: row[i])(x, index)  # noqa: E731
    told = {n: own(x, places) if n in BY_POSITION else x for n, x in sheet.told.items()}
    page = jnp.where((places == 0)[..., None], model.start(told, B), model.codes(before))
    tokens = model.mixed(model.page(page, told))
    turn = tuple(own(part, prefix + places) for part in sheet.turn)
    mask = jnp.broadcast_to(sheet.mask, (B, *sheet.mask.shape[1:]))
    mask = own(mask[:, 0], prefix + places)[:, None]
    start = prefix + at if B > 1 else prefix + at[0]  # one row is written in place
    tokens, cache = model.blocks.go_on(tokens, turn, mask, sheet.cache, start, layers=sheet.layers)
    codes, logits = model.choose(model.norm(tokens), told, pick, head=sheet.head)
    return codes, logits, dataclasses.replace(sheet, cache=cache)
