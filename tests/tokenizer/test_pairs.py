"""Every backbone trains with every kind of quantizer, under the critic and the text loss of edges
(that of features: test_text_loss.py)."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from evals.health import alarms
from tests.tokenizer.menu import KINDS
from tests.tokenizer.test_backbones import TINY, fresh
from tests.tokenizer.test_critic import SMALL
from tokenizer.lines import boxed_example
from tokenizer.model import TokenizerConfig
from tokenizer.task import LossConfig, TokenizerTask
from train.data.posters.canvas import PageStyle
from train.data.sources import Pages

START = 15  # the critic's first step
PAIRED = (
    "product", "vq", "vq cosine", "vq ema", "ibq", "lfq", "bsq", "product of vq", "residual of vq",
)  # fmt: skip


@functools.cache
def strips():
    """The first line of each of four pages with what is around it: pixels [4 24 96 3]."""
    pages, rows = Pages(PageStyle(96, 96), 4), []
    for i in range(4):
        made = boxed_example(pages[i], 6)
        left, top, width, height = made["line_boxes"][0]
        start = int(np.clip(round(top + height / 2) - 12, 0, 72))
        rows.append((made["pixels"][start : start + 24], [(left, top - start, width, height)]))
    pixels, boxes = (np.stack([np.asarray(row[i]) for row in rows]) for i in (0, 1))
    return {"pixels": pixels, "line_boxes": boxes.astype(np.float32)}


@pytest.mark.parametrize("kind", PAIRED)
@pytest.mark.parametrize("backbone", sorted(TINY))
def test_thirty_steps_neither_collapse_nor_diverge(backbone, kind):
    """On strips of four pages: every number finite, a better picture at the end, the critic from
    its step on, and codes that are still in use."""
    critic = dataclasses.replace(SMALL, weight=0.1, start_step=START, adaptive=True)
    model = TokenizerConfig(TINY[backbone], KINDS[kind])
    played = TokenizerTask(model, LossConfig(text_edges=1.0), critic)
    graphdef, params, extra = nnx.split(fresh(lambda: played.init(nnx.Rngs(0))), nnx.Param, ...)
    params, extra = nnx.to_pure_dict(params), nnx.to_pure_dict(extra)
    optimizer = optax.adam(3e-3)
    opt = optimizer.init(params)

    @jax.jit
    def step(params, extra, opt, given, n):
        def objective(params):
            model = nnx.merge(graphdef, params, extra)
            loss, scalars = played.loss(model, given, jax.random.fold_in(jax.random.key(0), n))
            return loss, (scalars, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param))))

        (loss, (scalars, after)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        updates, opt = optimizer.update(grads, opt)
        scalars = {**scalars, "loss": loss, "gradient": optax.tree.norm(grads)}
        return optax.apply_updates(params, updates), after, opt, scalars

    rows, given = [], strips()
    for n in range(2 * START):
        params, extra, opt, scalars = step(params, extra, opt, given, np.int32(n))
        rows.append({name: float(value) for name, value in scalars.items()})
    assert np.isfinite([list(row.values()) for row in rows]).all()
    assert rows[START - 1]["critic_loss"] == 0 and rows[START]["critic_loss"] > 0
    psnr_db, edges = ([row[name] for row in rows] for name in ("psnr_db", "text_edges"))
    assert np.mean(psnr_db[-4:]) > np.mean(psnr_db[:4]) + 0.5, psnr_db
    assert np.mean(edges[-4:]) < np.mean(edges[:4]), edges
    trained = nnx.merge(graphdef, params, extra)
    codes = jax.jit(lambda pixels: played.probes()["encode"](trained, pixels))
    assert not alarms(np.asarray(codes(given["pixels"])), trained.quantizer.codebook_size)
