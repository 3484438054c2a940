"""Bad updates are left out and counted, and a row of them stops the run with the steps' numbers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bundles import RUN_OFTEN
from tests.train.toys import NetTask, net_config, vectors
from train import mesh as meshes
from train.checkpoint import load_weights, newest
from train.checkpoint.retention import CheckpointConfig
from train.feeding import place_batch
from train.guard import Diverged, GuardConfig, Streak, fresh, judge
from train.loop import train
from train.optimizer import OptimizerConfig
from train.plan import plan


def toy_config(num_steps, **changes):
    optimizers = {"hidden": OptimizerConfig("adamw", 0.01, schedule="cosine", clip=1.0)}
    return net_config(num_steps, optimizers=optimizers, **changes)


def walk(num_steps, *, poisoned=(), **guard):
    """States and scalars of a toy run, the first state first."""
    config = toy_config(9, guard=GuardConfig(**guard), ema_decay=0.9)
    mesh = meshes.build({"data": 1}, jax.devices()[:1])
    with jax.set_mesh(mesh):
        planned = plan(NetTask(poisoned=poisoned), config, mesh)
        batches = [place_batch(vectors()[n], mesh, config.rules) for n in range(num_steps)]
        walked = [(planned.materialise(), {})]
        program = planned.step.lower(planned.abstract, batches[0])
        step = program.compile(compiler_options=RUN_OFTEN)  # bits are those of fused programs
        for batch in batches:
            given = jax.tree.map(jnp.copy, walked[-1][0])  # the step consumes what it is given
            walked.append(step(given, batch))
    return [(jax.tree.map(np.asarray, state), scalars) for state, scalars in walked]


def parts(state):
    return state.params, state.extra, state.opt, state.ema


def test_a_poisoned_step_changes_no_bit_and_is_counted():
    walked = walk(4, poisoned=(2, 3))
    assert [int(state.step) for state, _ in walked] == [0, 1, 2, 3, 4]
    for n in (2, 3):
        jax.tree.map(np.testing.assert_array_equal, parts(walked[n][0]), parts(walked[n - 1][0]))
        assert np.isnan(walked[n][1]["loss"]) and walked[n][1]["skipped"] == 1
    for n in (1, 4):
        assert np.isfinite(walked[n][1]["loss"]) and walked[n][1]["skipped"] == 0
    for part in ("params", "extra", "opt", "ema"):
        before, after = (jax.tree.leaves(getattr(walked[n][0], part)) for n in (3, 4))
        assert any((a != b).any() for a, b in zip(before, after, strict=True)), part
    rows = [[int(s[f"skipped_{name}"]) for _, s in walked[1:]] for name in ("in_a_row", "total")]
    assert rows == [[0, 1, 2, 0], [0, 1, 2, 2]]
    assert {k: int(v) for k, v in walked[4][0].guard.items() if k != "norm"} == {
        "skipped": 2, "in_a_row": 0, "seen": 2,
    }  # fmt: skip
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(walked[4][0]))


def test_a_calm_run_has_the_bits_of_one_without_a_guard():
    on = walk(4, spike_factor=100.0, warmup_steps=1)
    off = walk(4, max_in_a_row=0)
    for (a, _), (b, scalars) in zip(on, off, strict=True):
        jax.tree.map(np.testing.assert_array_equal, parts(a), parts(b))
        assert "skipped" not in scalars
    assert on[4][0].guard["seen"] == 4 and off[4][0].guard["seen"] == 0


def judged(config, norms):
    """Which of these norms are good, and the guard after them."""
    guard, found = fresh(), []
    for norm in norms:
        good, guard, _ = judge(config, guard, jnp.float32(1), jnp.float32(norm))
        found.append(bool(good))
    return found, guard


def test_a_spike_is_measured_against_the_mean_of_the_good_norms():
    config = GuardConfig(spike_factor=4.0, warmup_steps=3, decay=0.5)
    found, guard = judged(config, [2, 8, 4, 17, 1e9, np.inf, np.nan, 15, 0])
    assert found == [True, True, True, False, False, False, False, True, True]
    assert guard["skipped"] == 4 and guard["in_a_row"] == 0 and np.isfinite(guard["norm"])
    # the plain mean of 2, 8 and 4 is 4; here the decay counts from the third on: sqrt(4 * 4)
    assert judged(config, [2, 8, 4])[1]["norm"] == pytest.approx(np.log(4))
    assert judged(config, [2, 8, 1])[1]["norm"] == pytest.approx(np.log(2))
    slow = judged(dataclasses.replace(config, decay=0.99), [1, 10, 100])[1]
    assert slow["norm"] == pytest.approx(np.log(10), rel=1e-5)
    assert judged(dataclasses.replace(config, spike_factor=0.0), [1, 1, 1, 1, 1e30])[0][-1]
    assert not judged(config, [np.nan])[0][0]  # before it is warm too


def test_too_many_in_a_row_stop_the_run_and_are_named(tmp_path, monkeypatch):
    devices = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda *_: devices[:1])
    config = toy_config(30, log_every_steps=0, checkpoint=CheckpointConfig(2), guard=GuardConfig(3))
    task = NetTask(poisoned=(2, 3, 5, 6, 7, 8, 9))
    with pytest.raises(Diverged, match=r"steps 5 to 7 \(items 4 to 6 .*step 5: loss nan") as found:
        train(task, vectors(), config, tmp_path)
    assert found.value.steps == (5, 6, 7)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    skipped = {row["step"]: row for row in rows if row.get("skipped")}
    assert sorted(skipped) == [2, 3, 5, 6, 7]
    assert skipped[7]["loss"] is None and skipped[7]["skipped_in_a_row"] == 3
    # the host learnt of step 7 when step 8 was under way: that is what was saved, and it counts on
    assert newest(tmp_path / "checkpoints")[1]["step"] == 8
    weights, _, _ = load_weights(tmp_path / "checkpoints")
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(weights))
    with pytest.raises(Diverged, match="steps 5 to 9"):
        train(task, vectors(), config, tmp_path)


def test_a_streak_forgets_what_a_good_step_ended():
    streak = Streak(GuardConfig(2))
    bad = {"skipped": 1.0, "skipped_in_a_row": 1.0, "loss": 3.0, "gradient_norm": float("inf")}
    streak.see(4, bad)
    streak.see(5, {"skipped": 0.0, "loss": 1.0})
    streak.see(6, bad)
    with pytest.raises(Diverged, match=r"at steps 6 to 7 .*\(step 6: loss 3, .* inf; step 7: "):
        streak.see(7, {**bad, "skipped_in_a_row": 2.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spike_factor": 0.5}, "would leave out ordinary steps"),
        ({"decay": 1.0}, "must be at least 0 and less"),
        ({"max_in_a_row": -1}, "must be 0 or more"),
    ],
)
def test_bad_requests_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        GuardConfig(**changes)
