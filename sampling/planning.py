"""Prompts to blueprints: the engine under the copy automaton and the rules of a fitting page."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from blueprint import codec
from blueprint.check import demerits
from blueprint.copying import automaton
from blueprint.grammar import Limits
from blueprint.reading import PromptReader
from blueprint.schema import Blueprint
from blueprint.wishes import Wishes
from sampling.engine import Engine
from sampling.policy import Policy

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


def plan_pages(
    probes: Mapping[str, Callable[..., Any]],
    prompts: Sequence[str],
    plates: Plates,
    *,
    seed: int = 0,
    policy: Policy = Policy(),  # noqa: B008  # a frozen value
) -> list[Blueprint]:
    """A blueprint for each prompt: always valid, every quoted string verbatim and in order.

    `probes` are a planner's `step` and `empty_cache`. Raises `ValueError` when a prompt is too long
    for the planner, `BlueprintError` for a wish about a string that it does not quote.
    """
    ids = [plates.reader.ids(prompt) for prompt in prompts]
    rules = []
    for prompt, row in zip(prompts, ids, strict=True):
        left = dataclasses.replace(plates.limits, max_ids=plates.limits.max_ids - len(row))
        how = {"min_type_px": plates.min_type_px, "wishes": plates.wishes}
        rules.append(automaton(prompt, left, **how))
    engine = Engine(probes["step"], probes["empty_cache"], policy=policy)
    keys = jax.random.split(jax.random.key(seed), len(prompts))
    return [codec.decode(row) for row in engine.generate(ids, rules, keys)]


def best_plans(
    probes: Mapping[str, Callable[..., Any]],
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
