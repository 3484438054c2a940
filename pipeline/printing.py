"""How a config has pages planned and printed: limits, conditions, press."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from blueprint.grammar import Limits
from blueprint.reading import PromptReader
from blueprint.schema import Blueprint
from decoder.conditioning import ConditioningConfig, canonical_page, condition
from pipeline.tasks import decoder_task
from planner.model import PlannerConfig
from sampling.planning import Plates
from sampling.policy import Policy
from sampling.printing import Press
from train.config import ConfigError, build
from train.data.posters.scenes import MAX_TEXTS, OWN_TEXTS
from train.data.sources import DataConfig
from train.model import Model


def decoder_press(
    config: ConfigDict,
    *,
    guidance: float | None = None,
    changed: Mapping[str, Any] | None = None,
) -> Press:
    """How a decoder's config has pages printed, with its guidance or another, and what is `changed`
    of a `Press` by its names.

    Raises `ConfigError` for guidance of a decoder that never goes without its conditions.
    """
    said = {**config.get("press", {}), **(changed or {})}
    press, task = build(Press, said, path="config.press"), decoder_task(config)
    scale = press.guidance if guidance is None else guidance
    if scale != 1 and not task.drop_blueprint and not task.drop_glyphs:
        raise ConfigError(
            f"guidance {scale} needs a decoder trained with drop_blueprint or drop_glyphs; "
            "train one, or leave guidance at 1"
        )
    return dataclasses.replace(press, policy=Policy(ordered=task.model.ordered), guidance=scale)


def conditions(
    tokenizer: Model, config: ConditioningConfig, blueprints: Sequence[Blueprint]
) -> dict[str, np.ndarray]:
    """What a decoder is told about a batch of pages, the encoded canonical lines among it."""
    rows = [condition(blueprint, config) for blueprint in blueprints]
    given = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    canonical = np.stack([canonical_page(blueprint) for blueprint in blueprints])
    return {**given, "glyph_codes": tokenizer.ask("encode", canonical)}


def plates_of(data: DataConfig, planner: PlannerConfig, *, max_letters: int = 10**9) -> Plates:
    """Plans are for pages as large as those learnt, with type as large, and with no words of their
    own but those of the procedural pages, if it learnt from them."""
    page_px = data.page.width_px, data.page.height_px
    limits = Limits(page_px, planner.max_length, max_letters)
    if data.is_procedural:
        limits = dataclasses.replace(limits, own_texts=OWN_TEXTS, max_texts=MAX_TEXTS)
    return Plates(limits, data.page.min_type_px, reader=PromptReader(data.prompt_tokenizer))
