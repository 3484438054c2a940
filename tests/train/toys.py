"""Small things to train, shared by the loop's tests and by the process they kill."""

import numpy as np

from tokenizer.backbones import BackboneConfig
from tokenizer.model import QuantizerConfig, TokenizerConfig
from tokenizer.task import TokenizerTask
from train.data.batching import batches
from train.loop import LoopConfig
from train.optimizer import OptimizerConfig


def tokenizer_task():
    backbone = BackboneConfig(width=32, hidden=64)
    return TokenizerTask(TokenizerConfig(backbone, QuantizerConfig("product", (8,), 12)))


def loop_config(num_steps, **changes):
    optimizers = {
        "hidden": OptimizerConfig("muon", 0.02, schedule="linear", clip=1.0),
        "rest": OptimizerConfig("adamw", 2e-3, schedule="cosine", warmup_steps=3),
    }
    fields = {
        "optimizers": optimizers,
        "save_every_steps": 5,
        "log_every_steps": 1,
        "ema_decay": 0.9,
    }
    return LoopConfig(num_steps, **{**fields, **changes})


def pages(batch_size=8):
    """64 pages of 16 px, flat colours in 4 px blocks."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (64, 4, 4, 3), dtype=np.uint8)
    records = list(blocks.repeat(4, axis=1).repeat(4, axis=2))
    return batches(records, lambda pixels: {"pixels": pixels}, batch_size=batch_size, seed=1)
