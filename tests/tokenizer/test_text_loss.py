"""The tokenizer's text loss: zero for the page itself, more for a worse one, and felt by the
tokenizer alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.tokenizer.test_backbones import QUICK, TINY, fresh
from tests.train.toys import loop_config
from tokenizer.lines import boxed_example
from tokenizer.model import QuantizerConfig, TokenizerConfig
from tokenizer.recogniser import Frozen, Recogniser, RecogniserConfig
from tokenizer.task import LossConfig, TokenizerTask
from tokenizer.text_loss import edges, features
from train.data.posters.canvas import PageStyle
from train.data.sources import Pages
from train.plan import identity

SMALL = RecogniserConfig(height_px=16, width_px=144, width=16, hidden=32, num_blocks=2)
BOTH = LossConfig(text_edges=1.0, text_features=0.5)


@functools.cache
def reader(seed=0, config=SMALL):
    return fresh(lambda: Recogniser(config, rngs=nnx.Rngs(0)), seed)


def frozen(config=SMALL, weights="a hash"):
    return Frozen(config, weights, nnx.to_pure_dict(nnx.state(reader(config=config))))


def task(losses=BOTH, **changes):
    model = TokenizerConfig(TINY["patch"], QuantizerConfig("product", (8,), 12))
    return TokenizerTask(model, losses, **changes)


@functools.cache
def batch():
    pages = Pages(PageStyle(96, 96), 4)
    rows = [boxed_example(pages[i], 6) for i in range(4)]
    return {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}


def blurred(pixels):
    """The mean of each pixel and its eight neighbours."""
    padded = jnp.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    _, Y, X, _ = pixels.shape
    shifted = [padded[:, i : i + Y, j : j + X] for i in range(3) for j in range(3)]
    return sum(shifted) / 9


@functools.cache
def terms():
    """(edges, features) of a painting against the batch's pages, as one program."""
    page, boxes, seen = batch()["pixels"] / 127.5 - 1.0, batch()["line_boxes"], reader()

    def both(painted, boxes=boxes):
        return edges(painted - page, boxes), features(seen, page, painted, boxes)

    return jax.jit(both, compiler_options=QUICK), page, boxes


def test_the_page_itself_costs_nothing_and_a_blurred_one_something():
    cost, page, boxes = terms()
    assert [float(x) for x in cost(page)] == pytest.approx([0, 0], abs=1e-5)
    once, twice = cost(blurred(page)), cost(blurred(blurred(page)))
    for a, b in zip(once, twice, strict=True):
        assert 0.01 < a < b
    assert [float(x) for x in cost(-page, boxes * 0)] == [0, 0]


def test_only_what_lies_in_a_box_counts():
    cost, page, boxes = terms()
    left, top, width, height = (boxes[..., i, None] for i in range(4))
    near = lambda n, low, size: (jnp.arange(n) >= low - 1) & (jnp.arange(n) <= low + size)  # noqa: E731
    rows, columns = near(96, top, height), near(96, left, width)
    boxed = (rows[..., :, None] & columns[..., None, :]).any(axis=1)[..., None]
    assert 0.05 < boxed.mean() < 0.8
    elsewhere = jnp.where(boxed, page, blurred(page))
    assert [float(x) for x in cost(elsewhere)] == pytest.approx([0, 0], abs=1e-5)


def test_edges_are_their_formula():
    error = jnp.zeros((1, 8, 8, 1)).at[0, 3, 3, 0].set(1.0)
    boxes = jnp.array([[[2.0, 2.0, 4.0, 4.0]]])  # 4 x 3 steps each way, four of them of height 1
    assert float(edges(error, boxes)) == pytest.approx(4 / 24)


def test_the_gradient_reaches_the_tokenizer_and_not_the_recogniser():
    learning = task(LossConfig(l1=0.0, text_features=1.0))
    graphdef, params, _ = nnx.split(fresh(lambda: learning.init(nnx.Rngs(0))), nnx.Param, ...)
    params, arrays = nnx.to_pure_dict(params), nnx.to_pure_dict(nnx.state(reader()))
    assert set(params) == {"encoder", "decoder"}

    def loss(params, arrays):
        known = dataclasses.replace(learning, recogniser=Frozen(SMALL, "a hash", arrays))
        return known.loss(nnx.merge(graphdef, params, {}), batch(), jax.random.key(0))[0]

    ours, theirs = jax.jit(jax.grad(loss, (0, 1)), compiler_options=QUICK)(params, arrays)
    assert min(float(jnp.abs(x).max()) for x in jax.tree.leaves(ours)) > 0
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(theirs)) == 0


def test_off_it_needs_no_boxes_and_without_a_recogniser_it_says_so():
    model = fresh(lambda: task().init(nnx.Rngs(0)))
    pixels = {"pixels": batch()["pixels"]}
    key = jax.random.key(0)
    _, scalars = jax.eval_shape(lambda: task(LossConfig()).loss(model, pixels, key))
    assert "text_edges" not in scalars and not LossConfig().has_text
    with pytest.raises(ValueError, match=r"needs a trained recogniser: give config.text.recog"):
        jax.eval_shape(lambda: task().loss(model, batch(), key))


def test_the_recogniser_is_part_of_a_runs_identity_by_its_hash_alone():
    one = identity(task(recogniser=frozen()), loop_config(3))
    assert one["recogniser"] == {"model": dataclasses.asdict(SMALL), "weights": "a hash"}
    assert one != identity(task(recogniser=frozen(weights="another")), loop_config(3))


def test_ten_steps_with_both_terms_bring_both_down():
    learning = task(recogniser=frozen())
    graphdef, params, _ = nnx.split(fresh(lambda: learning.init(nnx.Rngs(0))), nnx.Param, ...)
    params, optimizer = nnx.to_pure_dict(params), optax.adam(5e-3)
    opt = optimizer.init(params)

    def step(params, opt):
        def objective(params):
            return learning.loss(nnx.merge(graphdef, params, {}), batch(), jax.random.key(0))

        (loss, scalars), grads = jax.value_and_grad(objective, has_aux=True)(params)
        updates, opt = optimizer.update(grads, opt)
        return optax.apply_updates(params, updates), opt, {"loss": loss, **scalars}

    step, rows = jax.jit(step, compiler_options=QUICK), []
    for _ in range(10):
        params, opt, scalars = step(params, opt)
        rows.append({name: float(value) for name, value in scalars.items()})
    assert np.isfinite([list(row.values()) for row in rows]).all()
    for name in ("loss", "text_edges", "text_features"):
        assert rows[-1][name] < rows[0][name], rows
