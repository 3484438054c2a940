"""Configs to runs: what `train.loop.train` takes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from blueprint.reading import PromptReader
from decoder.task import example as decoder_example
from evals.lines import RecognisedLines
from evals.plans import PlannedPages
from evals.prints import PrintedPages
from evals.reconstruction import Reconstructions
from pipeline.printing import conditions, decoder_press, plates_of
from pipeline.tasks import (
    decoder_task,
    load_model,
    planner_task,
    recogniser_task,
    token_contract,
    tokenizer_task,
)
from planner.examples import example as planner_example
from sampling.planning import plan_pages
from sampling.printing import print_counted
from tokenizer.lines import boxed_example
from tokenizer.perceptual import PerceptualConfig, perceptual_of
from tokenizer.recogniser import Frozen, RecogniserTask
from tokenizer.recogniser import example as recogniser_example
from tokenizer.text_loss import TextConfig
from train.config import ConfigError, build
from train.data.batching import Batches, batches, in_turn
from train.data.codes import open_caches, origins, page_px, require_same
from train.data.sources import DataConfig, Pages, Plans, heldout, open_buckets
from train.loop import Evaluator
from train.plan import LoopConfig
from train.probes import Probes
from train.task import Task


@dataclasses.dataclass(frozen=True)
class Run:
    """What a config comes to: everything that `train.loop.train` takes, but the workdir; `data` is
    what the config's own section does not say of its data."""

    task: Task
    dataset: Batches
    loop: LoopConfig
    evaluate: Evaluator | None
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def pixels_only(record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What the tokenizer trains on."""
    return {"pixels": record["pixels"]}


def _batches(data: DataConfig, procedural: Any, transform: Any, loop: LoopConfig) -> Batches:
    buckets = open_buckets(data, procedural)
    drawn = [
        batches(
            sources.records, transform, weights=sources.weights, batch_size=data.batch_size,
            seed=loop.seed + 1000 * number,
        )
        for number, sources in enumerate(buckets)
    ]  # fmt: skip
    return in_turn(drawn, [sources.share for sources in buckets])


def _tokenizer(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> Run:
    task = tokenizer_task(config)
    text = build(TextConfig, config.get("text", {}), path="config.text")
    transform: Callable[..., Any] = pixels_only
    if task.losses.has_text:
        transform = functools.partial(boxed_example, max_lines=text.max_lines)
    if task.losses.text_features:
        task = dataclasses.replace(task, recogniser=frozen_recogniser(text.recogniser))
    if task.losses.perceptual:
        perceptual = build(PerceptualConfig, config.get("perceptual", {}), path="config.perceptual")
        task = dataclasses.replace(task, perceptual=perceptual_of(perceptual))
    pages = Pages(heldout(data.page), data.num_evaluation_pages)
    return Run(task, _batches(data, Pages, transform, loop), loop, Reconstructions(pages))


def frozen_recogniser(folder: str) -> Frozen:
    """A trained recogniser for a loss; raises `ConfigError` for a folder that has none."""
    if not folder:
        raise ConfigError("config.losses.text_features needs a run: set config.text.recogniser")
    trained = load_model(Path(folder))
    if not isinstance(trained.task, RecogniserTask):
        raise ConfigError(f"config.text.recogniser {folder} is a {trained.config.task}'s run")
    arrays = jax.tree.map(np.asarray, trained.weights)
    return Frozen(trained.task.model, trained.weight_hash, arrays)


def _recogniser(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> Run:
    task = recogniser_task(config)
    transform = functools.partial(recogniser_example, config=task.model)
    dataset = _batches(data, Pages, transform, loop)
    pages = Pages(heldout(data.page), 4 * data.num_evaluation_pages)
    return Run(task, dataset, loop, RecognisedLines(pages, transform))


def _decoder(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> Run:
    task, press = decoder_task(config), decoder_press(config)
    if data.buckets:
        raise ConfigError("config.data.buckets is to be (): a decoder has its caches' pages")
    model = task.model
    if isinstance(data.codes, str) or not data.codes:
        raise ConfigError("config.data.codes is to be a tuple of code caches, as ('runs/codes',)")
    caches = open_caches(data.codes)
    contract, where = caches[0].header["contract"], ", ".join(data.codes)
    size_px = data.page.height_px, data.page.width_px
    wanted = {
        "model.num_codes": (model.num_codes, contract["num_codes"]),
        "model.codebook_size": (model.codebook_size, contract["codebook_size"]),
        "data.page (height, width)": (size_px, page_px(contract)),
        "data.num_pages": (data.num_pages, sum(map(len, caches))),
    }
    for name, (here, there) in wanted.items():
        if here != there:
            raise ConfigError(f"config.{name} is {here}, but {where} has {there}")
    for name in ("num_classes", "caption_width"):
        if getattr(model, name):
            raise ConfigError(f"config.model.{name}: pages have blueprints; set it to 0")
    if model.ordered and len(contract["levels"]) != 1:
        raise ConfigError("config.model.ordered is for codes of one FSQ channel each; set it False")
    transform = functools.partial(decoder_example, config=model.conditioning)
    mixed = functools.partial(batches, caches, transform, weights=data.code_weights)
    dataset = mixed(batch_size=data.batch_size, seed=loop.seed)
    evaluate = None
    if data.tokenizer:
        tokenizer = load_model(Path(data.tokenizer))
        require_same(contract, token_contract(tokenizer), where=where)

        def printed(probes: Probes, records: Sequence[Any]) -> tuple[np.ndarray, dict[str, float]]:
            given = conditions(tokenizer, model.conditioning, [r["blueprint"] for r in records])
            codes = jnp.zeros(given["glyph_codes"].shape, jnp.int32)
            masked = jnp.ones(codes.shape[:3], bool)
            keys = jax.random.split(jax.random.key(0), len(codes))
            print_all = probes.compiled(print_counted, static_argnames="press")
            chosen, passes = print_all(codes, masked, given, keys, press=press)
            own = tokenizer.probes["encode"](np.stack([r["pixels"] for r in records]))
            found = {"code_accuracy": (chosen == own).mean(), "num_passes": passes.mean()}
            found = {name: float(value) for name, value in found.items()}
            return np.asarray(tokenizer.probes["decode"](chosen)), found

        evaluate = PrintedPages(Pages(heldout(data.page), data.num_evaluation_pages), printed)
    task = dataclasses.replace(task, contract=contract)
    return Run(task, dataset, loop, evaluate, data=origins(caches))


def _planner(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> Run:
    task, reader = planner_task(config), PromptReader(data.prompt_tokenizer)
    reader.require(prompt_vocab_size=task.model.prompt_vocab_size)
    task = dataclasses.replace(task, prompt_tokenizer=reader.identity)
    how = {"max_length": task.model.max_length, "reader": reader}
    transform = functools.partial(planner_example, **how)
    plates = plates_of(data, task.model)
    pages = Plans(heldout(data.page), data.num_evaluation_pages)
    evaluate = PlannedPages(pages, lambda probes, prompts: plan_pages(probes, prompts, plates))
    return Run(task, _batches(data, Plans, transform, loop), loop, evaluate)


_RUNS = {
    "tokenizer": _tokenizer, "planner": _planner, "decoder": _decoder, "recogniser": _recogniser,
}  # fmt: skip


def run(config: ConfigDict) -> Run:
    """The run of a config; raises `ConfigError` naming the key when something is wrong with it."""
    if config.task not in _RUNS:
        raise ConfigError(f"config.task {config.task!r} is not one of {', '.join(_RUNS)}")
    data = build(DataConfig, config.data, path="config.data")
    loop = build(LoopConfig, config.loop, path="config.loop")
    return _RUNS[config.task](config, data, loop)
