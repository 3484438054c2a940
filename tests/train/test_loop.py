"""The loop: one device agrees with eight, arrays sit where they should, and another run is
refused."""

import json

import jax
import numpy as np
import pytest

from layers.axes import use_rules
from tests.train.toys import loop_config, pages, tokenizer_task
from train import mesh as meshes
from train.checkpoint import CheckpointError, Checkpoints, load_weights, newest
from train.loop import train
from train.optimizer import OptimizerConfig
from train.plan import plan


def flat(tree):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def test_one_device_agrees_with_eight(tmp_path, monkeypatch):
    eight = train(tokenizer_task(), pages(), loop_config(6), tmp_path / "eight")
    sharded = loop_config(
        6,
        mesh={"data": 2, "fsdp": 2, "tensor": 2},
        rules={"B": ("data", "fsdp"), "D": "fsdp", "F": "tensor"},
    )
    cubed = train(tokenizer_task(), pages(), sharded, tmp_path / "cubed")
    devices = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda *_: devices[:1])
    one = train(tokenizer_task(), pages(), loop_config(6), tmp_path / "one")
    for name, array in flat(one.params).items():
        np.testing.assert_allclose(flat(eight.params)[name], array, atol=2e-4, err_msg=name)
        np.testing.assert_allclose(flat(cubed.params)[name], array, atol=2e-4, err_msg=name)


def test_optimizer_arrays_sit_where_their_parameter_sits():
    rules = {"B": ("data", "fsdp"), "D": "fsdp", "F": "tensor"}
    config = loop_config(6, rules=rules)
    mesh = meshes.build({"data": 2, "fsdp": 2, "tensor": 2})
    with jax.set_mesh(mesh), use_rules(rules):
        state = plan(tokenizer_task(), config, mesh).materialise()
    wanted = {k: v for k, v in jax.tree_util.tree_flatten_with_path(state.params)[0]}
    split = [v for v in wanted.values() if not v.sharding.is_fully_replicated]
    assert len(split) > 10
    checked = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(state.opt)[0]:
        for owner, parameter in wanted.items():
            if path[-len(owner) :] == owner and leaf.shape == parameter.shape:
                assert leaf.sharding == parameter.sharding, path
                checked += 1
    assert checked >= len(wanted)


def test_loss_falls_and_is_logged_once_a_step(tmp_path):
    train(tokenizer_task(), pages(), loop_config(12), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]


def test_checkpoints_refuse_another_run_and_ignore_what_was_cut_short(tmp_path):
    state = train(tokenizer_task(), pages(), loop_config(5), tmp_path)
    folder = tmp_path / "checkpoints"
    (folder / "9").mkdir()
    (folder / "9" / "half").write_text("")
    again = train(tokenizer_task(), pages(), loop_config(5), tmp_path)
    assert not (folder / "9").exists()
    for name, array in flat(state).items():
        np.testing.assert_array_equal(flat(again)[name], array, err_msg=name)
    with pytest.raises(CheckpointError, match=r"loop.seed: 0 there, 7 here"):
        train(tokenizer_task(), pages(), loop_config(5, seed=7), tmp_path)
    weights, extra, manifest = load_weights(folder)
    assert manifest["step"] == 5 and extra == {}
    for name, array in flat(state.ema).items():
        np.testing.assert_array_equal(flat(weights)[name], array)
    with pytest.raises(CheckpointError, match="train there first"):
        newest(tmp_path / "nowhere")
    assert Checkpoints(folder, identity={}).steps() == [5]


def test_bad_requests_are_named(tmp_path):
    with pytest.raises(ValueError, match="needs 3 devices and there are 8"):
        meshes.build({"data": 3})
    with pytest.raises(ValueError, match="no optimizer for group rest"):
        config = loop_config(5, optimizers={"hidden": OptimizerConfig()})
        train(tokenizer_task(), pages(), config, tmp_path)
    with pytest.raises(FloatingPointError, match="step"):
        config = loop_config(
            9, optimizers={n: OptimizerConfig("adamw", 1e30) for n in ("hidden", "rest")}
        )
        train(tokenizer_task(), pages(), config, tmp_path / "nan")
