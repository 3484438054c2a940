"""Configs to shapes: what a run's programs take, without its data, its trained models or a device.

`scripts/preflight.py` compiles them ahead of time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from blueprint.schema import Blueprint
from decoder.task import example as decoder_example
from pipeline.printing import decoder_press
from pipeline.tasks import decoder_task, planner_task, recogniser_task, tokenizer_task
from planner.examples import example as planner_example
from sampling.printing import print_codes
from tokenizer.lines import boxed_example
from tokenizer.recogniser import example as recogniser_example
from tokenizer.text_loss import TextConfig
from train.config import ConfigError, build
from train.data.sources import DataConfig, Pages
from train.plan import LoopConfig
from train.preflight.compiling import Generation
from train.task import Task


@dataclasses.dataclass(frozen=True)
class AbstractRun:
    """A run as shapes: `batch` is the global one; `generation` what the trained model is for, if
    it generates; `left_out` names parts of the loss that need a trained model."""

    task: Task
    loop: LoopConfig
    batch: Mapping[str, jax.ShapeDtypeStruct]
    generation: Generation | None = None
    left_out: tuple[str, ...] = ()


def _batch(record: Mapping[str, Any], num_rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    arrays = {name: np.asarray(array) for name, array in record.items()}
    return {
        name: jax.ShapeDtypeStruct((num_rows, *array.shape), array.dtype)
        for name, array in arrays.items()
    }


def _blank(data: DataConfig) -> Blueprint:
    return Blueprint(data.page.width_px, data.page.height_px, "#fff", ())


def _planner(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> AbstractRun:
    task = planner_task(config)
    record = planner_example({"prompt": "a page", "blueprint": _blank(data)}, task.model.max_length)
    num_rows = data.batch_size
    structures = []  # the cache travels as its arrays, since its class takes no shapes

    def leaves() -> list[jax.Array]:
        cache = task.probes()["empty_cache"](task.init(nnx.Rngs(0)), jnp.zeros(num_rows))
        structures.append(jax.tree.structure(cache))
        return jax.tree.leaves(cache)

    def step(probes: Any, ids: Any, cache: list[Any], at: Any) -> Any:
        return probes["step"](ids, jax.tree.unflatten(structures[0], cache), at)

    row = jax.ShapeDtypeStruct((num_rows,), jnp.int32)
    ids = jax.ShapeDtypeStruct((num_rows, 1), jnp.int32)
    arrays = (ids, jax.eval_shape(leaves), row)
    generation = Generation("a token of every plan", step, arrays, ("BT", "BKSH", "B"), updated=1)
    return AbstractRun(task, loop, _batch(record, num_rows), generation)


def _decoder(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> AbstractRun:
    task, press = decoder_task(config), decoder_press(config)
    model, f = task.model, task.model.conditioning.downsampling
    grid = (data.page.height_px // f, data.page.width_px // f, model.num_codes)
    codes = np.zeros(grid, np.min_scalar_type(model.codebook_size - 1))
    unseen = {
        "classes": np.zeros((), np.int32), "caption_tokens": np.zeros((), np.int32),
        "captions": np.zeros((model.num_caption_tokens, model.caption_width), np.float32),
        "captioned": np.True_,
    }  # fmt: skip
    record: Mapping[str, Any]
    if not model.has_blueprint:
        record = {"codes": codes, **{name: unseen[name] for name in task.conditions}}
    else:
        shown = {"codes": codes, "glyph_codes": codes, "blueprint": _blank(data)}
        record = decoder_example(shown, config=model.conditioning)
    batch = _batch(record, data.batch_size)
    given = {name: batch[name] for name in task.conditions}
    told = {name: "B" + "_" * (array.ndim - 1) for name, array in given.items()}
    whole = jax.ShapeDtypeStruct(batch["codes"].shape, jnp.int32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), data.batch_size))
    masked = jax.ShapeDtypeStruct(whole.shape[:3], jnp.bool_)
    generation = Generation(
        "all codes of every page",
        lambda probes, *arrays: print_codes(probes, *arrays, press=press),
        (whole, masked, given, keys), ("B___", "B__", told, "B"),
    )  # fmt: skip
    return AbstractRun(task, loop, batch, generation)


def _tokenizer(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> AbstractRun:
    task = tokenizer_task(config)
    record = Pages(data.page, 1)[0]
    if task.losses.has_text:
        text = build(TextConfig, config.get("text", {}), path="config.text")
        record = boxed_example(record, max_lines=text.max_lines)
    else:
        record = {"pixels": record["pixels"]}
    needy = tuple(n for n in ("text_features", "perceptual") if getattr(task.losses, n))
    losses = dataclasses.replace(task.losses, **dict.fromkeys(needy, 0.0))
    task = dataclasses.replace(task, losses=losses)
    return AbstractRun(task, loop, _batch(record, data.batch_size), left_out=needy)


def _recogniser(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> AbstractRun:
    task = recogniser_task(config)
    record = recogniser_example(Pages(data.page, 1)[0], config=task.model)
    return AbstractRun(task, loop, _batch(record, data.batch_size))


_RUNS = {
    "tokenizer": _tokenizer, "planner": _planner, "decoder": _decoder, "recogniser": _recogniser,
}  # fmt: skip


def abstract_run(config: ConfigDict) -> AbstractRun:
    """The shapes of a config's run; raises `ConfigError` naming the key when something is wrong."""
    if config.task not in _RUNS:
        raise ConfigError(f"config.task {config.task!r} is not one of {', '.join(_RUNS)}")
    data = build(DataConfig, config.data, path="config.data")
    loop = build(LoopConfig, config.loop, path="config.loop")
    return _RUNS[config.task](config, data, loop)
