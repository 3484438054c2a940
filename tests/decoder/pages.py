"""Small pages with codes at random, for tests of the decoder's objectives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from decoder import sheets
from decoder.conditioning import ConditioningConfig
from decoder.config import DecoderConfig
from decoder.task import example
from layers.attention import Storage
from layers.block import BlockConfig
from sampling.picking import Pick
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import plan

BLOCKS = BlockConfig(width=32, num_layers=2, num_heads=2, num_kv_heads=2, head_size=16, hidden=64)
DEPTH = BlockConfig(width=16, num_layers=2, num_heads=2, num_kv_heads=1, head_size=8, hidden=32)
GRID = (6, 7)


def config(*, lock=False, blocks=BLOCKS, **changes):
    """A decoder of 6 codes of 4 values; causal unless said otherwise."""
    conditioning = ConditioningConfig(lock_regions=lock)
    return DecoderConfig(blocks, 6, 4, conditioning, **{"objective": "causal", **changes})


@functools.cache
def rows(size, lock):
    rng, style = np.random.default_rng(0), PageStyle()
    shape = (style.height_px // 8, style.width_px // 8, 6)
    draw = lambda: rng.integers(0, 4, shape, dtype=np.uint8)  # noqa: E731
    records = [
        {"blueprint": plan(s, style)[1], "codes": draw(), "glyph_codes": draw()}
        for s in range(size)
    ]
    return [example(record, ConditioningConfig(lock_regions=lock)) for record in records]


def batch(size, *, lock=False, grid=GRID):
    """The top left corners of pages, as the task takes them."""
    data = {name: jnp.stack([r[name] for r in rows(size, lock)]) for name in rows(size, lock)[0]}
    corner = {"codes", "glyph_codes", "regions", "glyphs"}
    return {n: a[:, : grid[0], : grid[1]] if n in corner else a for n, a in data.items()}


def every_step(model, codes, told, storage=Storage()):  # noqa: B008  # a frozen value
    """A causal decoder's logits [B T Q V] position by position, each given the true codes before
    it, and the sheet in the end."""
    (B, y, x, Q), pick = codes.shape, Pick(jax.random.split(jax.random.key(0), len(codes)))
    flat = codes.reshape(B, y * x, Q)

    def one(sheet, t):
        before = flat[:, jnp.maximum(t - 1, 0)]
        _, logits, sheet = sheets.step(model, t, before, sheet, pick)
        return sheet, logits

    sheet, steps = jax.lax.scan(one, sheets.prefill(model, codes, told, storage), jnp.arange(y * x))
    return steps.swapaxes(0, 1), sheet


def given(data, size=None):
    """What a batch of so many rows says beside its codes."""
    return {name: array[:size] for name, array in data.items() if name != "codes"}
