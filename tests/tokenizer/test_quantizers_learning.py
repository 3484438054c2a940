"""Quantizers in training: they keep their codes in use, eight devices equal one, and a run that was
cut short ends in the same bits."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from layers.axes import use_rules
from tests.tokenizer.menu import EMA, KINDS, batch, trainer
from tests.tokenizer.test_backbones import TINY
from tests.tokenizer.test_critic import SMALL
from tests.train.test_loop import flat
from tests.train.toys import loop_config, pages
from tokenizer.model import QuantizerConfig, TokenizerConfig, make_quantizer
from tokenizer.task import TokenizerTask
from train import loop
from train import mesh as meshes
from train.checkpoint import Checkpoints, load_weights
from train.checkpoint.retention import CheckpointConfig
from train.loop import train
from train.optimizer import OptimizerConfig


@pytest.fixture(params=KINDS)
def name(request):
    return request.param


def used(codes):
    """exp(entropy) of each column of codes [n Q]."""
    counts = [np.unique(column, return_counts=True)[1] / len(codes) for column in codes.T]
    return [float(np.exp(-(p * np.log(p)).sum())) for p in counts]


def test_thirty_steps_find_structure_and_keep_the_codes_in_use(name):
    """Of 24 clusters, in the last 512 positions: perplexity over a third of the alphabet (of 48,
    where it is larger), for every code of a position; at most 0.6 of the first loss."""
    state, step = trainer(KINDS[name])
    losses, codes = [], []
    for n in range(30):
        state, (loss, grads, out) = step(state, batch(n), n)
        losses.append(float(loss))
        codes.append(np.asarray(out.codes).reshape(128, -1))
        assert all(np.isfinite(g).all() for g in jax.tree.leaves((loss, grads)))
    alphabet = make_quantizer(KINDS[name], rngs=nnx.Rngs(0)).codebook_size
    assert min(used(np.concatenate(codes[-4:]))) > min(alphabet, 48) / 3
    assert np.mean(losses[-4:]) < 0.6 * losses[0]


def moved(state):
    return {**flat(state[0]), **{f"extra{k}": v for k, v in flat(state[1]).items()}}


def with_lost_codes(state):
    """Four rows of each table far from every vector, and never used."""
    params, extra, opt = state

    def lose(path, leaf):
        kept = jnp.arange(leaf.shape[0]) >= 4 if leaf.ndim else None
        match path[-1].key:
            case "mean" | "shift":
                return jnp.where(kept[:, None], leaf, 50.0)
            case "share":
                return jnp.where(kept, leaf, 0.0)
        return leaf

    return params, jax.tree_util.tree_map_with_path(lose, extra), opt


@pytest.mark.parametrize("name", ["vq cosine", "vq ema", "residual of vq", "ibq", "lfq", "bsq"])
def test_one_device_agrees_with_eight(name):
    """Codes are equal, loss, parameters and statistics to rounding: through the k-means start (step
    0), averages, and the restart of four lost codes a table (step 2)."""
    mesh = meshes.build({"data": -1})
    whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    one, step = trainer(KINDS[name])
    eight = jax.device_put(one, whole)
    restarted = []
    for n in range(5):
        if n == 2:
            one, eight = with_lost_codes(one), jax.device_put(with_lost_codes(one), whole)
        one, (loss1, _, out1) = step(one, batch(n), n)
        with jax.set_mesh(mesh), use_rules({"B": "data"}):
            eight, (loss8, _, out8) = step(eight, jax.device_put(batch(n), split), n)
        np.testing.assert_array_equal(out1.codes, out8.codes)
        np.testing.assert_allclose(loss1, loss8, rtol=1e-5)
        np.testing.assert_allclose(
            *(out.scalars.get("restarted", 0.0) for out in (out1, out8)), rtol=0
        )
        restarted.append(float(out8.scalars.get("restarted", 0.0)))
    assert len(out8.codes.sharding.device_set) == 8 and not out8.codes.is_fully_replicated
    assert restarted[2] >= 3 or name in ("ibq", "lfq", "bsq")
    for key, array in moved(one).items():
        np.testing.assert_allclose(moved(eight)[key], array, atol=1e-5, err_msg=key)


def test_a_run_cut_short_ends_in_the_same_bits(tmp_path, monkeypatch):
    """Saved at step 3, cut short at step 4, continued to step 6: every parameter, statistic,
    average and moment has the bits of an undisturbed run, restarts and a critic that starts at
    step 2 included. (One compiled program serves the three; tests/train/test_tasks_kill.py kills
    processes.)"""
    devices = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda *_: devices[:1])
    codebook = dataclasses.replace(EMA, decay=0.5, restart_below=0.5)
    quantizer = QuantizerConfig("vq", num_codes=1, codebook=codebook)
    critic = dataclasses.replace(SMALL, start_step=2, adaptive=True)
    model = TokenizerConfig(TINY["patch"], quantizer)
    task = TokenizerTask(model, critic=critic)
    optimizers = {name: OptimizerConfig("adamw", 2e-3) for name in ("hidden", "rest", "critic")}
    config = loop_config(
        6, checkpoint=CheckpointConfig(3), eval_every_steps=4, optimizers=optimizers
    )

    mesh = meshes.build(config.mesh)
    with jax.set_mesh(mesh), use_rules(config.rules):
        planned = loop.plan(task, config, mesh)

    def interrupt(step, probes):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "plan", lambda *_: planned)
    with pytest.raises(KeyboardInterrupt):
        train(task, pages(), config, tmp_path / "killed", evaluate=interrupt)
    assert Checkpoints(tmp_path / "killed" / "checkpoints", identity={}).steps() == [3]
    killed = train(task, pages(), config, tmp_path / "killed")
    calm = train(task, pages(), config, tmp_path / "calm")
    assert calm.extra["critic"]["steps"] == 6 and calm.extra["critic"]["real"] != 0
    assert len(jax.tree.leaves(calm.extra)) == 6 and planned.step._cache_size() == 1
    jax.tree.map(np.testing.assert_array_equal, calm, killed)
    rows = [json.loads(row) for row in (tmp_path / "calm" / "metrics.jsonl").open()]
    assert sum(row["quantizer/restarted"] for row in rows) > 0
    _, extra, _ = load_weights(tmp_path / "killed" / "checkpoints")
    jax.tree.map(np.testing.assert_array_equal, calm.extra, extra)
