"""Prompts to blueprints: the engine under the copy automaton and the rules of a fitting page."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from blueprint import codec
from blueprint.check import demerits
from blueprint.copying import automaton, quoted
from blueprint.draft import classes, masks, outline
from blueprint.grammar import Limits
from blueprint.reading import PromptReader
from blueprint.schema import Blueprint
from blueprint.wishes import Wishes
from sampling.engine import Alphabet, Compiling, Engine, Request
from sampling.policy import Policy

_key_data = jax.jit(lambda key, number: jax.random.key_data(jax.random.fold_in(key, number)))
SPREAD = Policy(temperature=0.7, top_p=0.95)  # how the tries after the greedy one are drawn


@dataclasses.dataclass(frozen=True)
class Plates:
    """What every plan keeps to: the limits of planner and decoder (`max_ids` counts the prompt's
    too), the least type, the caller's wishes and how prompts are read. A `min_type_px` of 0 leaves
    the rules of `Fitting` off. `legible_px`, where it was measured, is the least type that will be
    printed legibly: of several plans, those with smaller type are worse."""

    limits: Limits
    min_type_px: int = 0
    wishes: Wishes = dataclasses.field(default_factory=Wishes)
    reader: PromptReader = dataclasses.field(default_factory=PromptReader)
    legible_px: float | None = None


def _request(prompt: str, plates: Plates, key: np.ndarray) -> Request:
    """What the engine makes of a prompt. Raises `ValueError` naming the prompt when not even the
    shortest plan of it fits."""
    ids = plates.reader.ids(prompt)
    left = dataclasses.replace(plates.limits, max_ids=plates.limits.max_ids - len(ids))
    how = {"min_type_px": plates.min_type_px, "wishes": plates.wishes}
    draft = outline(
        page_px=left.page_px, quotes=quoted(prompt),
        boxes=plates.wishes.boxes if plates.min_type_px else {},
    )  # fmt: skip
    return Request(ids, functools.partial(automaton, prompt, left, **how), key, draft)


def plans_as_made(
    probes: Compiling,
    prompts: Iterable[tuple[int, str]],
    plates: Plates,
    *,
    seed: int = 0,
    policy: Policy = Policy(),  # noqa: B008  # a frozen value
    num_slots: int = 32,
) -> Iterator[tuple[int, Blueprint]]:
    """(number, blueprint) of numbered prompts in the order in which they are done, any number of
    them: they are asked for as there is room. A prompt's number and the seed are what its plan is
    drawn by. Raises as `plan_pages` does."""
    alphabet, key = Alphabet(masks(), classes()), jax.random.key(seed)
    engine = Engine(probes, policy=policy, alphabet=alphabet, num_slots=num_slots)
    numbers: list[int] = []

    def requests() -> Iterator[Request]:
        for number, prompt in prompts:
            numbers.append(number)
            yield _request(prompt, plates, np.asarray(_key_data(key, number)))

    at_most = len(prompts) if isinstance(prompts, Sequence) else None
    for index, ids in engine.stream(requests(), at_most=at_most):
        yield numbers[index], codec.decode(ids)


def plan_pages(
    probes: Compiling,
    prompts: Sequence[str],
    plates: Plates,
    *,
    seed: int = 0,
    policy: Policy = Policy(),  # noqa: B008  # a frozen value
) -> list[Blueprint]:
    """A blueprint for each prompt: always valid, every quoted string verbatim and in order.

    `probes` are a planner's. Raises `ValueError` when a prompt is too long for the planner,
    `BlueprintError` for a wish about a string that it does not quote.
    """
    numbered = list(enumerate(prompts))
    made = dict(plans_as_made(probes, numbered, plates, seed=seed, policy=policy))
    return [made[i] for i in range(len(prompts))]


def best_plans(
    probes: Compiling,
    prompts: Sequence[str],
    plates: Plates,
    *,
    seed: int = 0,
    num_tries: int = 4,
) -> list[Blueprint]:
    """The plan with the fewest demerits of several for each prompt, type under `plates.legible_px`
    among them: the greedy one, then sampled ones; the earlier of two as good."""
    best = plan_pages(probes, prompts, plates, seed=seed)
    for i in range(1, num_tries):
        tried = plan_pages(probes, prompts, plates, seed=seed + i, policy=SPREAD)
        rows = zip(prompts, best, tried, strict=True)
        best = [
            min(pair, key=functools.partial(demerits, prompt, legible_px=plates.legible_px))
            for prompt, *pair in rows
        ]
    return best
