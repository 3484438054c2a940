"""Token generation under constraints: a slow loop that is the specification, and an engine that
agrees with it.

Both draw the id at position t of a row with `fold_in(row's key, t)`, so a row's ids depend neither
on its neighbours nor on the batch's size.

The engine keeps a fixed number of slots busy with any number of rows: a slot whose row has ended
takes the next one (continuous batching). Its programs have few shapes, so that they are compiled
once: of the slots, of prompts by bucket, of automata by bucket.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sampling.batch import Alphabet, Automaton, Batch, Constraint, Programs, Request, bucket
from sampling.drafting import do_round, fill, open_slots
from sampling.policy import Policy, choose


@runtime_checkable
class Compiling(Protocol):
    """A model's probes, and whole programs over them (`train.probes.Probes`)."""

    def compiled(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """`function(probes, *arrays)` as a compiled function of the arrays."""
        ...


_choose = jax.jit(choose, static_argnames="policy")


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
        mask = jnp.array(np.frombuffer(constraint.allowed(), np.uint8) > 0)
        allowed = jnp.where(mask, logits.astype(jnp.float32), -jnp.inf)
        token = int(_choose(jax.random.fold_in(key, len(ids)), allowed, policy))
        constraint.advance(token)
        ids.append(token)
    return ids[len(prompt) :]


class Engine:
    """Many rows at once with a cache: the probes are `step(ids [B T], cache, at [B]) -> (logits,
    cache)`, `empty_cache(rows)` and, for a model whose layers are stacked, `apart()`.

    A round writes `ahead` ids of at most `num_slots` rows on the device, and the host verifies them
    after it. Prompts are padded on the right; a padded position is overwritten before any query may
    look at it.
    """

    def __init__(
        self,
        probes: Compiling,
        *,
        policy: Policy = Policy(),  # noqa: B008  # a frozen value
        alphabet: Alphabet | None = None,
        num_slots: int = 32,
        ahead: int = 8,
    ) -> None:
        if num_slots < 1 or ahead < 1:
            raise ValueError(f"num_slots {num_slots} and ahead {ahead} are to be at least 1")
        round_ = probes.compiled(do_round, static_argnames="policy", donate_argnums=0)
        self._programs = Programs(
            probes.compiled(open_slots, static_argnames="ahead"),
            probes.compiled(fill, donate_argnums=0),
            functools.partial(round_, policy=policy), policy.truncates,
        )  # fmt: skip
        self._alphabet = alphabet
        self._num_slots, self._ahead = num_slots, ahead

    def generate(
        self, prompts: Sequence[Sequence[int]], starts: Sequence[Callable[[], Constraint]],
        keys: Array, automata: Sequence[Automaton | None] | None = None,
    ) -> list[list[int]]:  # fmt: skip
        """The ids that follow each prompt, until its constraint has finished.

        Raises `ValueError` naming the prompt that is empty or that the cache cannot hold with its
        ids.
        """
        automata = [None] * len(prompts) if automata is None else automata
        if not len(prompts) == len(starts) == len(keys) == len(automata):
            raise ValueError(
                f"{len(prompts)} prompts, {len(starts)} constraints and {len(keys)} keys: "
                "a row needs one of each"
            )
        data = np.asarray(jax.random.key_data(keys))
        requests = map(Request, prompts, starts, data, automata)
        made: list[list[int]] = [[] for _ in prompts]
        for index, ids in self.stream(requests, at_most=len(prompts)):
            made[index] = ids
        return made

    def stream(
        self, requests: Iterable[Request], *, at_most: int | None = None
    ) -> Iterator[tuple[int, list[int]]]:
        """(index of the request, the ids that follow its prompt) as rows are done, in any order.
        Requests are taken when there is a slot for them; `at_most` says how many there are, if that
        is known.

        Raises `ValueError` as `generate` does.
        """
        waiting, num_slots = enumerate(requests), self._num_slots
        if at_most is not None:
            num_slots = min(num_slots, bucket(at_most, 1))
        batches = [Batch(self._programs, self._alphabet, num_slots, self._ahead)]
        if at_most is None or at_most > num_slots:  # while one is verified, the other is written
            batches.append(Batch(self._programs, self._alphabet, num_slots, self._ahead))
        while True:
            for batch in batches:
                yield from batch.collect()
                yield from batch.refill(waiting)
                batch.launch()
            if not any(batch.is_busy for batch in batches):
                return
