"""Ids written ahead on the device, and verified afterwards: speculative decoding (Leviathan et al.
2023) in which the draft is the model's own, under the outline of the rules instead of the rules.

Rows stand in slots. One program does a round: it chooses again, under the rules' own masks, the ids
that the last round wrote ahead, keeps those that are the same, and writes on from there. So the
host is asked once a round instead of once an id, and what comes is what the slow loop has, to the
id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from sampling.policy import Policy, choose

Probes = Mapping[str, Callable[..., Any]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tables:
    """Automata of all slots (`blueprint.draft.Draft`), over one set of masks and classes."""

    masks: Bool[Array, "M V"]
    classes: Int[Array, " V"]
    allowed: Int[Array, "B S"]
    after: Int[Array, "B S C"]

    def mask(self, state: Int[Array, " B"]) -> Bool[Array, "B V"]:
        """What each row's state allows."""
        rule = jnp.take_along_axis(self.allowed, state[:, None], axis=1)
        alone = jnp.arange(self.masks.shape[1]) == -1 - rule
        return jnp.where(rule >= 0, self.masks[jnp.maximum(rule[:, 0], 0)], alone)

    def next(self, state: Int[Array, " B"], token: Int[Array, " B"]) -> Int[Array, " B"]:
        """The state of each row after an id."""
        return self.after[jnp.arange(len(state)), state, self.classes[token]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """Rows in the making. `last` is the newest id that is certain, at `place`, with `state` after
    it; then follow the ids drafted in the last round, the logits they were chosen from and the
    states before each."""

    cache: Any
    keys: UInt32[Array, "B _"]
    last: Int[Array, " B"]
    place: Int[Array, " B"]
    state: Int[Array, " B"]
    drafted: Int[Array, "B W"]
    logits: Float[Array, "B W V"]
    states: Int[Array, "B W"]


def open_slots(probes: Probes, keys: UInt32[Array, "B _"], *, ahead: int) -> Slots:
    """Empty slots that write `ahead` ids in a round."""
    B = len(keys)
    zero = jnp.zeros((B,), jnp.int32)
    cache = probes["empty_cache"](zero)
    logits, _ = probes["step"](zero[:, None], cache, zero)  # for its shape alone
    wide = jnp.zeros((B, ahead), jnp.int32)
    empty = jnp.zeros((B, ahead, logits.shape[-1]), jnp.float32)
    return Slots(cache, keys, zero, zero, zero, wide, empty, wide)


def fill(
    probes: Probes,
    slots: Slots,
    where: Int[Array, " P"],
    prompts: Int[Array, "P T"],
    lengths: Int[Array, " P"],
    keys: UInt32[Array, "P _"],
) -> Slots:
    """The slots with new prompts in those of `where`; past the last slot one goes nowhere."""
    zero = jnp.zeros_like(lengths)
    _, cache = probes["step"](prompts, probes["empty_cache"](zero), zero)
    last = jnp.take_along_axis(prompts, lengths[:, None] - 1, axis=1)[:, 0]
    put = lambda old, new: old.at[where].set(new, mode="drop")  # noqa: E731
    return dataclasses.replace(
        slots, cache=jax.tree.map(put, slots.cache, cache), keys=put(slots.keys, keys),
        last=put(slots.last, last), place=put(slots.place, lengths - 1),
        state=put(slots.state, zero),
    )  # fmt: skip


def _chosen(
    slots: Slots,
    logits: Float[Array, "B W V"],
    mask: Bool[Array, "B W V"],
    first: Int[Array, ""] | int,
    policy: Policy,
) -> Int[Array, "B W"]:
    """The ids of W places, of which the first is so many after `place`."""
    keys = jax.random.wrap_key_data(slots.keys)
    places = (slots.place + first)[:, None] + jnp.arange(logits.shape[1])
    fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))
    rows = jax.vmap(jax.vmap(lambda key, row: choose(key, row, policy)))
    allowed = jnp.where(mask, logits.astype(jnp.float32), -jnp.inf)
    return rows(fold(keys, places), allowed).astype(jnp.int32)


def verify(
    slots: Slots,
    tables: Tables,
    masks: Bool[Array, "B W V"],
    known: Int[Array, " B"],
    *,
    policy: Policy,
) -> tuple[Slots, Int[Array, " B"]]:
    """What is certain of the draft: (slots that have it, how many of its ids are right).

    `masks` are the rules', as far as they go: behind the first `known` ids, all of which they let
    through, they have one more, unless the draft ends there. Below 0 there is no draft. After a
    draft that is not right to its end stands the id that the rules would have had chosen.
    """
    W = slots.drafted.shape[1]
    chosen = _chosen(slots, slots.logits, masks, 1, policy)
    same = (chosen == slots.drafted) & (jnp.arange(W) < known[:, None])
    right = jnp.cumprod(same, axis=1).sum(axis=1)
    at = jnp.minimum(right, W - 1)[:, None]
    take = lambda rows: jnp.take_along_axis(rows, at, axis=1)[:, 0]  # noqa: E731
    last = take(chosen)  # at the end of a draft that is right, the draft's own last
    fresh = known < 0
    keep = lambda old, new: jnp.where(fresh, old, new)  # noqa: E731
    moved = dataclasses.replace(
        slots, last=keep(slots.last, last),
        place=keep(slots.place, slots.place + jnp.minimum(right + 1, W)),
        state=keep(slots.state, tables.next(take(slots.states), last)),
    )  # fmt: skip
    return moved, right


def write_ahead(probes: Probes, slots: Slots, tables: Tables, *, policy: Policy) -> Slots:
    """The slots with a new draft behind what is certain."""
    layers = probes["apart"]() if "apart" in probes else None
    more = {} if layers is None else {"layers": layers}

    def one(carry: tuple, i: Int[Array, ""]) -> tuple[tuple, tuple]:
        token, state, cache = carry
        logits, cache = probes["step"](token[:, None], cache, slots.place + i, **more)
        mask = tables.mask(state)[:, None]
        token = _chosen(slots, logits, mask, 1 + i, policy)[:, 0]
        row = token, logits[:, 0].astype(jnp.float32), state
        return (token, tables.next(state, token), cache), row

    steps = jnp.arange(slots.drafted.shape[1])
    (_, _, cache), rows = jax.lax.scan(one, (slots.last, slots.state, slots.cache), steps)
    drafted, logits, states = (jnp.moveaxis(x, 0, 1) for x in rows)
    return dataclasses.replace(slots, cache=cache, drafted=drafted, logits=logits, states=states)


def do_round(
    probes: Probes,
    slots: Slots,
    tables: Tables,
    masks: Bool[Array, "B W V"],
    known: Int[Array, " B"],
    *,
    policy: Policy,
) -> tuple[Slots, Int[Array, "B 2+W"]]:
    """Verify, then write ahead: the slots, and for the host how many ids were right, the newest
    that is certain, and the new draft."""
    slots, right = verify(slots, tables, masks, known, policy=policy)
    slots = write_ahead(probes, slots, tables, policy=policy)
    return slots, jnp.concatenate([right[:, None], slots.last[:, None], slots.drafted], axis=1)
