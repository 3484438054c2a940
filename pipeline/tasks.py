"""Configs to tasks, and trained runs to models that can be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from decoder.config import DecoderConfig
from decoder.task import DecoderTask
from pipeline.sealed import prompt_file, read_config, require_part
from planner.model import PlannerConfig
from planner.task import PlannerTask
from tokenizer.critic import CriticConfig
from tokenizer.model import TokenizerConfig
from tokenizer.recogniser import RecogniserConfig, RecogniserTask
from tokenizer.task import LossConfig, TokenizerTask
from train.checkpoint import fingerprint, load_weights
from train.config import build
from train.export.folder import has_weights, read_weights
from train.model import Model
from train.task import Task


def tokenizer_task(config: ConfigDict) -> TokenizerTask:
    """The task of a tokenizer's config, without the recogniser of its loss, which only training
    needs; without a `critic` in it there is none."""
    model = build(TokenizerConfig, config.model, path="config.model")
    losses = build(LossConfig, config.losses, path="config.losses")
    critic = build(CriticConfig, config.get("critic", {}), path="config.critic")
    return TokenizerTask(model, losses, critic)


def recogniser_task(config: ConfigDict) -> RecogniserTask:
    """The task of a recogniser's config."""
    return RecogniserTask(build(RecogniserConfig, config.model, path="config.model"))


def planner_task(config: ConfigDict) -> PlannerTask:
    """The task of a planner's config."""
    return PlannerTask(build(PlannerConfig, config.model, path="config.model"))


def decoder_task(config: ConfigDict) -> DecoderTask:
    """The task of a decoder's config, without the contract that its codes bring."""
    model = build(DecoderConfig, config.model, path="config.model")
    names = ("whole_mask", "drop_blueprint", "drop_glyphs")
    return DecoderTask(model, **{name: config[name] for name in names if name in config})


_TASKS = {
    "tokenizer": tokenizer_task, "planner": planner_task, "decoder": decoder_task,
    "recogniser": recogniser_task,
}  # fmt: skip


def task_of(config: ConfigDict) -> Task:
    """The task of any config; raises `ValueError` for a `config.task` that is none."""
    if config.get("task") not in _TASKS:
        known = ", ".join(_TASKS)
        raise ValueError(f"config.task {config.get('task')!r} is not known; there is: {known}")
    return _TASKS[config.task](config)


def load_model(workdir: Path, *, checked: bool = False, mesh: Mesh | None = None) -> Model:
    """The newest weights of a training run (averaged ones if kept), or those that were exported or
    imported into its `weights/`, ready to be asked, on a mesh if one is given.

    Raises `FileNotFoundError` when the folder is no run, `CheckpointError` when nothing was saved
    there yet, `DamageError` when files are not those that were written, `FormatError` when they are
    not of this config, and `SealError` for a part of an exported bundle that is not as it was
    sealed, unless that was `checked` before.
    """
    config = ConfigDict(read_config(workdir))
    if not checked:
        require_part(workdir)
    if used := prompt_file(workdir, config):
        config.data.prompt_tokenizer = used
    task = task_of(config)
    if has_weights(Path(workdir)):
        weights, extra, manifest = read_weights(Path(workdir), task)
    else:
        weights, extra, manifest = load_weights(Path(workdir) / "checkpoints")
    model = Model(config, task, weights, extra, manifest, fingerprint(weights, extra))
    return model.on_one_device() if mesh is None else model.on(mesh)


def token_contract(tokenizer: Model) -> dict[str, Any]:
    """What identifies a tokenizer's codes: two with the same contract mean the same by every
    code."""
    model = tokenizer_task(tokenizer.config).model
    quantizer, kind = model.quantizer, model.quantizer.kind
    page, f = tokenizer.config.data.page, model.backbone.downsampling
    plain = kind in ("fsq", quantizer.name)
    return {
        "codebook_size": int(tokenizer.probes["codebook_size"]()),
        "num_codes": quantizer.num_codes,
        "quantizer": quantizer.name if plain else f"{quantizer.name} of {kind}",
        "levels": list(quantizer.levels) if kind == "fsq" else [],
        "downsampling": f,
        "grid": [page.height_px // f, page.width_px // f],
        "scan": "raster",
        "weights": tokenizer.weight_hash,
    }
