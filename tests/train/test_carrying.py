"""What the loop carries from step to step and over restarts."""

import json
from itertools import pairwise

import jax
import numpy as np
import pytest

from layers.axes import use_rules
from tests.train.toys import NetTask, net_config, vectors
from train import mesh as meshes
from train.checkpoint import About, CheckpointError, load_weights, newest
from train.checkpoint.retention import CheckpointConfig
from train.feeding import place_batch
from train.log import Evaluation
from train.loop import train
from train.plan import plan

RULES = {"B": ("data", "fsdp"), "D": "fsdp", "F": "tensor"}
CUBE = {"data": 2, "fsdp": 2, "tensor": 2}


def test_the_step_compiles_once_donates_and_keeps_every_place():
    config = net_config(4, rules=RULES, mesh=CUBE)
    mesh = meshes.build(CUBE)
    with jax.set_mesh(mesh), use_rules(RULES):
        planned = plan(NetTask(), config, mesh)
        states = [planned.materialise()]
        for n in range(3):
            state, _ = planned.step(states[-1], place_batch(vectors()[n], mesh, RULES))
            states.append(state)
    assert planned.step._cache_size() == 1
    for before, after in pairwise(states):
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
        places = [jax.tree.map(lambda x: x.sharding, s) for s in (before, after)]
        assert places[0] == places[1] == jax.tree.map(lambda x: x.sharding, planned.abstract)
    assert len([x for x in jax.tree.leaves(state.opt) if not x.sharding.is_fully_replicated]) >= 6


def test_variables_that_are_no_parameters_are_carried_saved_and_restored(tmp_path):
    state = train(NetTask(), vectors(), net_config(7), tmp_path)
    wanted = sum(np.abs(vectors()[n]["x"]).sum(axis=0) for n in range(7))
    np.testing.assert_allclose(state.extra["seen"], wanted, rtol=1e-5)
    fresh = plan(NetTask(), net_config(7), meshes.build({"data": -1})).materialise()
    np.testing.assert_array_equal(state.params["fixed"]["kernel"], fresh.params["fixed"]["kernel"])
    weights, extra, manifest = load_weights(tmp_path / "checkpoints")
    np.testing.assert_array_equal(extra["seen"], state.extra["seen"])
    assert jax.tree.structure(weights) == jax.tree.structure(state.params)
    assert manifest["step"] == 7 and manifest["metrics"]["loss"] > 0
    assert manifest["versions"]["jax"] == jax.__version__ and manifest["arrays"]["step"]


def test_a_resumed_run_logs_every_step_once_and_a_finished_one_returns(tmp_path, caplog):
    calls = []

    def interrupt(step, probes):
        calls.append(step)
        if len(calls) == 2:
            raise KeyboardInterrupt
        ones = probes["apply"](np.ones((2, 16), np.float32))
        return Evaluation({"mean": float(ones.mean())}, alarms=["it burns"] if step == 9 else [])

    config = net_config(10, checkpoint=CheckpointConfig(4), eval_every_steps=3)
    with pytest.raises(KeyboardInterrupt):
        train(NetTask(), vectors(), config, tmp_path, evaluate=interrupt)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    state = train(NetTask(), vectors(), config, tmp_path, evaluate=interrupt)
    assert calls == [3, 6, 6, 9, 10]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 11))
    assert [row["step"] for row in rows if "eval/mean" in row] == [3, 6, 9, 10]
    assert [row["step"] for row in rows if row.get("eval/num_alarms")] == [9]
    assert f"step 9 of {tmp_path.name}: it burns" in caplog.text
    calm = train(NetTask(), vectors(), config, tmp_path / "calm")
    jax.tree.map(np.testing.assert_array_equal, state, calm)
    again = train(NetTask(), vectors(), config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state, again)


def test_a_scalar_that_is_not_finite_is_named_with_its_step(tmp_path):
    config = net_config(30, log_every_steps=0, checkpoint=CheckpointConfig(2))
    with pytest.raises(FloatingPointError, match="bias became nan at step 5"):
        train(NetTask(bad_from=5), vectors(), config, tmp_path)
    assert newest(tmp_path / "checkpoints")[1]["step"] == 4


def test_only_cadences_may_change(tmp_path):
    train(
        NetTask(),
        vectors(),
        net_config(4),
        tmp_path,
        about=About({"pages": 8, "style": {"px": 64}}),
    )

    def again(task=None, data=None, **changes):
        config = net_config(changes.pop("num_steps", 4), **changes)
        data = data or {"pages": 8, "style": {"px": 64}}
        return train(task or NetTask(), vectors(), config, tmp_path, about=About(data))

    again(checkpoint=CheckpointConfig(1, keep=5), log_every_steps=7, eval_every_steps=2)
    with pytest.raises(CheckpointError, match=r"data\.style\.px: 64 there, 32 here"):
        again(data={"pages": 8, "style": {"px": 32}})
    with pytest.raises(CheckpointError, match=r"loop\.num_steps: 4 there, 8 here"):
        again(num_steps=8)
    with pytest.raises(CheckpointError, match="bad_from: 0 there, 3 here"):
        again(task=NetTask(bad_from=3))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"data": 3}, "needs 3 devices and there are 8"),
        ({"data": -1, "fsdp": 3}, "cannot divide 8 devices by 3"),
        ({"data": -1, "fsdp": -1}, "only one may be -1"),
        ({"data": -1, "fsdp": 0}, "fsdp has size 0"),
    ],
)
def test_meshes_that_do_not_fit_are_named(shape, message):
    with pytest.raises(ValueError, match=message):
        meshes.build(shape)
    assert dict(meshes.build({"data": -1, "fsdp": 2}).shape) == {"data": 4, "fsdp": 2}
    assert meshes.build({"data": -1}, jax.devices()[:2]).size == 2
