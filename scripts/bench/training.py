"""Our own training step, the one that the loop runs: forward, backward and update."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from layers.axes import use_rules
from layers.kernels import use_kernel
from scripts.bench.generation import Shape
from tokenizer.backbones.config import BackboneConfig, ConvConfig
from tokenizer.model import TokenizerConfig
from tokenizer.quantizers.codebook import CodebookConfig
from tokenizer.quantizers.menu import QuantizerConfig
from tokenizer.task import TokenizerTask
from train.accounting import model_flops
from train.feeding import place_batch
from train.optimizer import OptimizerConfig
from train.plan import LoopConfig, plan
from train.task import Task

RATE, B1, B2, DECAY, CLIP = 1e-4, 0.9, 0.95, 0.05, 1.0  # of everybody's AdamW


def _vq(width: int, multipliers: tuple[int, ...], *, latent: int, size: int) -> TokenizerConfig:
    blocks, groups = (2, 32) if width >= 128 else (1, 8)
    conv = ConvConfig(multipliers=multipliers, latent=latent, num_groups=groups)
    f = 2 ** (len(multipliers) - 1)
    backbone = BackboneConfig("conv", f, width=width, num_blocks=blocks, conv=conv)
    codebook = CodebookConfig(size=size, width=8)
    return TokenizerConfig(backbone, QuantizerConfig("vq", num_codes=1, codebook=codebook))


TOKENIZERS = {
    "small": _vq(32, (1, 2, 2, 4), latent=128, size=1024),
    "vq16": _vq(128, (1, 1, 2, 2, 4), latent=256, size=16384),
    "tiny": _vq(8, (1, 1, 2), latent=16, size=32),
}
"""VQGANs: `vq16` is LlamaGen's (72M), `small` f8 with a residual block a level, and one for
tests."""


@dataclasses.dataclass(frozen=True)
class Rival:
    """A training step to be timed: `run` does one update and waits for it."""

    run: Callable[[], float]  # the loss
    num_params: int


@dataclasses.dataclass(frozen=True)
class Own(Rival):
    """Ours, the FLOPs of a step by the rule of `train.accounting`, and the bytes that it holds;
    `text` is the compiled program's."""

    flops: float
    held_bytes: int
    text: Callable[[], str]


def tokenizer_task(name: str, *, dtype: str) -> TokenizerTask:
    """A tokenizer that learns by the mean absolute error of its pixels and its codebook's terms."""
    return TokenizerTask(dataclasses.replace(TOKENIZERS[name], dtype=dtype))


def code_batch(shape: Shape, num_rows: int) -> dict[str, np.ndarray]:
    """Random codes [B y x 1] of random classes."""
    rng = np.random.default_rng(0)
    size = num_rows, shape.side, shape.side, 1
    codes = rng.integers(0, shape.codebook_size, size, np.int32)
    return {"codes": codes, "classes": rng.integers(0, 1000, num_rows, np.int32)}


def page_batch(side_px: int, num_rows: int) -> dict[str, np.ndarray]:
    """Random pixels [B Y X 3]."""
    rng = np.random.default_rng(0)
    return {"pixels": rng.integers(0, 256, (num_rows, side_px, side_px, 3), np.uint8)}


def loop_config() -> LoopConfig:
    """One device, AdamW for all that is trained, each group's gradient clipped."""
    adamw = OptimizerConfig(
        "adamw", learning_rate=RATE, b1=B1, b2=B2, weight_decay=DECAY, clip=CLIP
    )
    return LoopConfig(num_steps=10**6, optimizers={"hidden": adamw, "rest": adamw})


def step_of(
    task: Task, batch: Mapping[str, np.ndarray], config: LoopConfig | None = None
) -> tuple[Any, Any, Any]:
    """(the step compiled, its first state, the batch on the device)."""
    config = config or loop_config()
    mesh = config.build_mesh(jax.devices()[:1])
    with jax.set_mesh(mesh), use_rules(config.rules), use_kernel(config.attention):
        planned = plan(task, config, mesh)
        placed = place_batch(batch, mesh, config.rules)
        state = planned.materialise()
        compiled: Any = planned.step
        return compiled.lower(state, placed).compile(), state, placed


def ours(task: Task, batch: Mapping[str, np.ndarray], config: LoopConfig | None = None) -> Own:
    """A task's step over one batch again and again, by a loop's config or by everybody's AdamW."""
    step, state, placed = step_of(task, batch, config)
    memory = step.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    kept = [state]
    num_params = sum(x.size for x in jax.tree.leaves(state.params))

    def run() -> float:
        kept[0], scalars = step(kept[0], placed)
        jax.block_until_ready(kept[0])
        return float(scalars["loss"])

    return Own(run, num_params, model_flops(task, batch), held, step.as_text)
