"""Token generation under constraints: a slow loop that is the specification, and the cached one
that agrees with it.

Both draw the id at position t of a row with `fold_in(row's key, t)`, so a row's ids depend neither
on its neighbours nor on the batch's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sampling.policy import Policy, choose


@runtime_checkable
class Constraint(Protocol):
    """What may come next: `allowed()` has one byte an id."""

    finished: bool

    def allowed(self) -> bytes:
        """1 at each id that may come next."""
        ...

    def advance(self, token: int) -> None:
        """Take one of them."""
        ...


def _mask(constraint: Constraint, vocab_size: int) -> np.ndarray:
    if constraint.finished:
        return np.ones(vocab_size, bool)
    return np.frombuffer(constraint.allowed(), np.uint8) > 0


def generate_slowly(
    logits_of: Callable[[Int[Array, "1 T"]], Float[Array, "1 T V"]],
    prompt: Sequence[int],
    constraint: Constraint,
    key: Array,
    policy: Policy,
) -> list[int]:
    """One row, the whole sequence anew for every id: obviously right."""
    ids = list(prompt)
    while not constraint.finished:
        logits = logits_of(jnp.array([ids], jnp.int32))[0, -1]
        mask = jnp.array(_mask(constraint, logits.shape[-1]))
        allowed = jnp.where(mask, logits.astype(jnp.float32), -jnp.inf)
        token = int(choose(jax.random.fold_in(key, len(ids)), allowed, policy))
        constraint.advance(token)
        ids.append(token)
    return ids[len(prompt) :]


def _padded(prompts: Sequence[Sequence[int]], capacity: int) -> np.ndarray:
    """int32 [B T]: T is a multiple of 64, so that few shapes compile, but at most `capacity`."""
    for i, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= capacity:
            size = f"has {len(prompt)} ids" if prompt else "is empty"
            raise ValueError(f"prompt {i} {size} and the cache holds {capacity}")
    longest = max(map(len, prompts))
    ids = np.zeros((len(prompts), min(-(-longest // 64) * 64, capacity)), np.int32)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    return ids


def _require_room(places: np.ndarray, running: np.ndarray, capacity: int) -> None:
    full = np.nonzero(running & (places + 1 >= capacity))[0]
    if len(full):
        raise ValueError(f"row {full[0]} goes on beyond the {capacity} ids that the cache holds")


class Engine:
    """Many rows at once with a cache: `step(ids [B T], cache, at [B]) -> (logits, cache)`.

    Prompts are padded on the right; a padded position is overwritten before any query may look at
    it.
    """

    def __init__(
        self,
        step: Callable[[Array, Any, Array], tuple[Array, Any]],
        empty_cache: Callable[[Array], Any],
        *,
        policy: Policy = Policy(),  # noqa: B008  # a frozen value
    ) -> None:
        self._step = step
        self._empty_cache = empty_cache
        self._choose = jax.jit(self._pick)
        self._policy = policy

    def _pick(
        self,
        logits: Float[Array, "B V"],
        mask: Bool[Array, "B V"],
        keys: Array,
        places: Int[Array, " B"],
    ) -> Int[Array, " B"]:
        allowed = jnp.where(mask, logits.astype(jnp.float32), -jnp.inf)
        here = jax.vmap(jax.random.fold_in)(keys, places)
        return jax.vmap(lambda key, row: choose(key, row, self._policy))(here, allowed)

    def generate(
        self, prompts: Sequence[Sequence[int]], constraints: Sequence[Constraint], keys: Array
    ) -> list[list[int]]:
        """The ids that follow each prompt, until its constraint has finished.

        Raises `ValueError` naming the prompt that is empty or that the cache cannot hold with its
        ids.
        """
        if len(prompts) != len(constraints) or len(prompts) != len(keys):
            raise ValueError(
                f"{len(prompts)} prompts, {len(constraints)} constraints and {len(keys)} keys: "
                "a row needs one of each"
            )
        if not prompts:
            return []
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        cache = self._empty_cache(jnp.zeros(len(prompts), jnp.int32))
        ids = _padded(prompts, cache[0].keys.shape[2])
        logits, cache = self._step(jnp.array(ids), cache, jnp.zeros(len(prompts), jnp.int32))
        logits = logits[jnp.arange(len(prompts)), lengths - 1]
        made: list[list[int]] = [[] for _ in prompts]
        places = lengths
        while not all(c.finished for c in constraints):
            mask = np.stack([_mask(c, logits.shape[-1]) for c in constraints])
            tokens = np.asarray(self._choose(logits, mask, keys, places))
            for row, constraint, token in zip(made, constraints, tokens, strict=True):
                if not constraint.finished:
                    constraint.advance(int(token))
                    row.append(int(token))
            logits, cache = self._step(jnp.array(tokens[:, None]), cache, jnp.array(places))
            logits = logits[:, 0]
            running = np.array([not c.finished for c in constraints])
            _require_room(places, running, cache[0].keys.shape[2])
            places = np.where(running, places + 1, places)
        return made
