"""The line recogniser: CTC by hand, padding that counts nothing, and that it learns to read."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from evals.lines import RecognisedLines, text_of
from layers.axes import axes_tree
from tests.tokenizer.test_backbones import QUICK, fresh, gradient
from tokenizer.lines import crop, filled_px
from tokenizer.recogniser import (
    RecogniserConfig,
    RecogniserTask,
    best_path,
    example,
    ink,
    reweighted,
)
from train import mesh as meshes
from train.data.posters.canvas import PageStyle
from train.data.sources import Pages
from train.optimizer import OptimizerConfig, build

SMALL = RecogniserConfig(
    height_px=20, width_px=132, width=96, hidden=128, num_blocks=2, max_lines=4, max_bytes=16
)
TASK = RecogniserTask(SMALL)


@functools.cache
def records():
    pages = Pages(PageStyle(), 8)
    return [pages[i] for i in range(8)]


def batch(config=SMALL):
    rows = [example(record, config) for record in records()]
    return {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}


def logits_of(path):
    return jax.nn.one_hot(jnp.array(path), 5) * 4.0


def test_greedy_reading_by_hand():
    path = [[0, 2, 2, 0, 2, 3, 3, 0, 0, 4], [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]]
    found = best_path(logits_of(path))
    assert found.tolist() == [[0, 2, 0, 0, 2, 3, 0, 0, 0, 4], [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]]
    assert [text_of(row) for row in np.array(found)] == ["\x01\x01\x02\x03", "\x00\x00"]
    assert text_of(np.array([0xE2 + 1, 0, 0x82 + 1, 0xAC + 1, 0])) == "€"
    assert text_of(np.array([0xE3, 0, 66])) == "�A"


def test_optax_counts_paths_as_we_read_them():
    targets = ([1], [1, 2], [2, 2], [])
    labels = jnp.array([target + [0] * (3 - len(target)) for target in targets])
    logits = jax.random.normal(jax.random.key(0), (4, 4, 3))
    loss = jax.jit(optax.ctc_loss, compiler_options=QUICK)
    nll = loss(logits, jnp.zeros((4, 4)), labels, (labels == 0) * 1.0)
    paths = np.stack(np.meshgrid(*[range(3)] * 4), axis=-1).reshape(-1, 4)
    reads = np.asarray(best_path(jax.nn.one_hot(paths, 3)))
    says = [[int(i) for i in row if i] for row in reads]
    for i, target in enumerate(targets):
        odds = np.asarray(jax.nn.log_softmax(logits[i]))[np.arange(4), paths].sum(axis=-1)
        hits = [odd for odd, said in zip(odds, says, strict=True) if said == target]
        assert float(nll[i]) == pytest.approx(-np.log(np.exp(hits).sum()), rel=1e-4)


def test_ink_looks_alike_in_any_colours():
    given = batch()
    pixels, boxes = given["pixels"] / 127.5 - 1.0, given["line_boxes"]
    filled = jnp.arange(132) < filled_px(boxes, 20, 132).reshape(-1, 1)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def see(pixels):
        lines = crop(pixels, boxes, height_px=20, width_px=132)
        return ink(lines.reshape(-1, 20, 132, 3), filled)

    there = np.asarray(boxes[..., 2] > 0).ravel()
    plain, turned = see(pixels), see(-0.5 * pixels[..., ::-1] + 0.1)
    np.testing.assert_allclose(turned[there], plain[there], atol=0.15)
    strength = np.sqrt(np.square(np.asarray(plain)).mean(axis=(1, 2)))
    assert strength[there].min() > 0.3 and (strength[~there] == 0).all()


def test_training_jitters_lines_and_reading_does_not():
    model = fresh(lambda: TASK.init(nnx.Rngs(0)))
    jitter = dataclasses.replace(SMALL, jitter=0.25, stroke_jitter=0.7)
    shaken = RecogniserTask(jitter)
    given, keys = batch(), [jax.random.key(i) for i in (0, 0, 1)]
    other = fresh(lambda: shaken.init(nnx.Rngs(0)))
    losses = jax.jit(lambda key: shaken.loss(other, given, key)[0], compiler_options=QUICK)
    first, same, another = (float(losses(key)) for key in keys)
    assert first == same != another
    pages = given["pixels"], given["line_boxes"]
    read = lambda task, model: task.probes()["logits"](model, *pages)  # noqa: E731
    np.testing.assert_array_equal(read(shaken, other), read(TASK, model))


def test_strokes_get_thicker_and_thinner_within_their_neighbours():
    line = jnp.zeros((64, 9, 21)).at[:, 2:7, 10].set(1.0)
    changed = np.asarray(reweighted(jax.random.key(0), line, 1.0))
    np.testing.assert_allclose(np.square(changed).mean(axis=(1, 2)), 1.0, rtol=2e-2)
    beside = changed[:, 4, 9] / changed[:, 4, 10]  # a stroke of one pixel can only get thicker
    assert beside.min() == 0 and 0.8 < beside.max() <= 1 and (beside == 0).mean() > 0.3
    assert np.abs(changed[:, :, 12:]).max() == 0 and np.abs(changed[:, :1]).max() == 0
    np.testing.assert_allclose(
        reweighted(jax.random.key(0), line, 0.0), line / np.sqrt(5 / 189), rtol=1e-3
    )


def test_room_for_more_lines_and_bytes_changes_no_loss():
    model = fresh(lambda: TASK.init(nnx.Rngs(0)))
    loss = jax.jit(
        lambda given: TASK.loss(model, given, jax.random.key(0))[0], compiler_options=QUICK
    )
    roomy = dataclasses.replace(SMALL, max_lines=7, max_bytes=21)
    assert float(loss(batch(roomy))) == pytest.approx(float(loss(batch())), rel=1e-5)


def test_a_line_that_ctc_cannot_write_is_refused():
    narrow = dataclasses.replace(SMALL, width_px=12)
    with pytest.raises(ValueError, match=r"strips and there are 4: raise config.model.width_px"):
        [example(record, narrow) for record in records()]
    with pytest.raises(ValueError, match="width_px 100 is not a multiple of strip_px 3"):
        RecogniserConfig(width_px=100)
    with pytest.raises(ValueError, match=r"stroke_jitter 1\.5 from 0 to 1"):
        RecogniserConfig(stroke_jitter=1.5)


def test_overfits_eight_pages_and_says_so():
    model, num_steps = TASK.init(nnx.Rngs(0)), 320
    graphdef, params = nnx.split(model)
    params, given = nnx.to_pure_dict(params), batch()
    pairs = [{name: array[i : i + 2] for name, array in given.items()} for i in (0, 2, 4, 6)]
    optimizer = build(
        {
            "hidden": OptimizerConfig("muon", 0.02, schedule="linear"),
            "rest": OptimizerConfig("adamw", 3e-3, schedule="linear"),
        },
        TASK.group, params, axes=axes_tree(model), summed=axes_tree(model, field="summed"),
        num_steps=num_steps,
    )  # fmt: skip
    opt = optimizer.init(params)

    @jax.jit
    def step(params, opt, pair):
        loss = lambda p: TASK.loss(nnx.merge(graphdef, p), pair, jax.random.key(0))[0]  # noqa: E731
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = optimizer.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt, value

    first = None
    for i in range(num_steps):
        params, opt, value = step(params, opt, pairs[i % 4])
        first = value if first is None else first
    assert first > 3 and value < 0.2, (first, value)
    read = jax.jit(lambda *xs: TASK.probes()["read"](nnx.merge(graphdef, params), *xs))
    judge = RecognisedLines(records(), functools.partial(example, config=SMALL))
    scores = judge(0, {"read": read}).scalars
    assert scores["line_accuracy"] > 0.9 and scores["character_error_rate"] < 0.04
    assert scores["num_lines"] == int((given["line_boxes"][..., 2] > 0).sum())
    nothing = judge(0, {"read": lambda pixels, boxes: np.zeros((8, 4, 44), int)}).scalars
    assert nothing["line_accuracy"] == 0 and nothing["character_error_rate"] == 1


def test_one_device_agrees_with_eight():
    rules = {"B": ("data", "fsdp"), "D": "fsdp", "F": "tensor"}
    cube = meshes.build({"data": 2, "fsdp": 2, "tensor": 2})
    one = meshes.build({"data": 1}, jax.devices()[:1])
    given = {name: np.asarray(array) for name, array in batch().items()}
    (loss, grads), _ = gradient(TASK, one, {"B": "data"}, given)
    (cut_loss, cut_grads), params = gradient(TASK, cube, rules, given)
    assert sum(not p.sharding.is_fully_replicated for p in jax.tree.leaves(params)) > 4
    np.testing.assert_allclose(cut_loss, loss, rtol=1e-5)
    for wanted, found in zip(jax.tree.leaves(grads), jax.tree.leaves(cut_grads), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 + 1e-4 * np.abs(wanted).max())
