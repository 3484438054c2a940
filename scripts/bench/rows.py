"""A config's run on one device, over rows that need no trained model: pages as the config draws
them, and random codes where it has codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decoder.task import DecoderTask
from decoder.task import example as decoder_example
from pipeline.abstract import AbstractRun, abstract_run
from planner.examples import example as planner_example
from planner.task import PlannerTask
from train import config as configs
from train.data.sources import DataConfig, Pages, PageStyle, Plans
from train.plan import LoopConfig
from train.task import Task

Row = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rows:
    """What a step is made of; `left_out` names what of the config's loss needs a trained model."""

    task: Task
    loop: LoopConfig
    batch: Row
    left_out: tuple[str, ...] = ()


def _decoder(run: AbstractRun, style: PageStyle, count: int) -> Iterator[Row]:
    """Blueprints of pages, with codes that are anybody's."""
    model: Any = run.task.model  # type: ignore[attr-defined]
    sizes = {"codes": model.codebook_size, "glyph_codes": model.codebook_size,
             "classes": model.num_classes}  # fmt: skip
    rng = np.random.default_rng(0)
    for plan in (Plans(style, count)[i] for i in range(count)):
        row = {
            name: rng.integers(0, sizes.get(name, 1), x.shape[1:]).astype(x.dtype)
            for name, x in run.batch.items()
        }
        shown = {**row, "blueprint": plan["blueprint"]}
        yield decoder_example(shown, config=model.conditioning) if model.has_blueprint else row


def _planner(run: AbstractRun, style: PageStyle, count: int) -> Iterator[Row]:
    length = run.task.model.max_length  # type: ignore[attr-defined]
    return (planner_example(Plans(style, count)[i], length) for i in range(count))


def _pixels(run: AbstractRun, style: PageStyle, count: int) -> Iterator[Row]:
    return ({"pixels": Pages(style, count)[i]["pixels"]} for i in range(count))


_KINDS: Mapping[type, Callable[[AbstractRun, PageStyle, int], Iterator[Row]]] = {
    DecoderTask: _decoder, PlannerTask: _planner,
}  # fmt: skip


def rows_of(path: Path, num_rows: int, overrides: Sequence[str] = ()) -> Rows:
    """So many rows of a config's decoder, planner or tokenizer, for a mesh of one device. Raises
    `ConfigError` for a config that does not fit together, or whose rows have more than pixels."""
    sections = {"loop": LoopConfig}
    config: Any = configs.load(path, overrides, sections=sections, defaults={"init": ""})
    with config.unlocked():
        config.data.batch_size = num_rows
    run = abstract_run(config)
    style = configs.build(DataConfig, config.data, path="config.data").page
    rows = list(_KINDS.get(type(run.task), _pixels)(run, style, num_rows))
    if missing := sorted(run.batch.keys() - rows[0].keys()):
        raise configs.ConfigError(f"{path}: rows of {', '.join(missing)} are not drawn here")
    loop = dataclasses.replace(run.loop, mesh={"data": 1}, dcn_mesh={})
    batch = {name: np.stack([row[name] for row in rows]) for name in run.batch}
    return Rows(run.task, loop, batch, run.left_out)
