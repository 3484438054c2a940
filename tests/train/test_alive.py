"""The whole loop under what happens to a run: signals, a stuck source, damage, a full disk."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.bundles import COMPILED_QUICKLY
from tests.train.toys import NetTask, net_config, vectors
from train import loop
from train.checkpoint import CheckpointConfig, CheckpointError, DamageError, manifest, newest, steps
from train.exits import STUCK
from train.log import Evaluation
from train.optimizer import OptimizerConfig
from train.supervision.stopping import Stopped

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS = 12


def go(workdir, *, evaluate=None, fall_back=False, eval_every_steps=0, log_every_steps=1, **kept):
    """A run of twelve steps on one device, saved every third; its last state."""
    saving = {"every_steps": 3, "keep": 9, **kept}
    config = net_config(
        NUM_STEPS, optimizers={"hidden": OptimizerConfig("adamw", 0.01)}, mesh={"data": 1},
        checkpoint=CheckpointConfig(**saving), fall_back=fall_back,
        eval_every_steps=eval_every_steps, log_every_steps=log_every_steps,
    )  # fmt: skip
    state = loop.train(NetTask(), vectors(), config, workdir, evaluate=evaluate)
    return jax.tree.map(np.asarray, state)


def same(state, other):
    jax.tree.map(np.testing.assert_array_equal, state, other)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    devices = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda *_: devices[:1])


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The last state of a run that nothing happened to."""
    devices = jax.devices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: devices[:1])
        return go(tmp_path_factory.mktemp("calm"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The workdir of a run that was asked to stop in the evaluation after step 7."""
    workdir, seen = tmp_path_factory.mktemp("stopped"), []

    def evaluate(step, probes):
        x = np.ones((2, 16), np.float32)
        seen.append((step, probes["apply"](x).shape))
        os.kill(os.getpid(), signal.SIGUSR1)
        probes["apply"](x)
        raise AssertionError("a probe ran although the run was asked to stop")

    devices = jax.devices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: devices[:1])
        with pytest.raises(Stopped, match="saved at step 7") as raised:
            go(workdir, evaluate=evaluate, eval_every_steps=7)
    assert raised.value.step == 7 and raised.value.code == 75 and seen == [(7, (2, 16))]
    return workdir


@pytest.fixture
def run(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def test_a_signal_in_an_evaluation_leaves_it_saves_and_changes_no_bit(run, calm):
    assert steps(run / "checkpoints") == [3, 6, 7]
    assert not [name for name in newest(run / "checkpoints")[1]["metrics"] if "eval" in name]
    same(go(run), calm)


def test_a_damaged_newest_save_is_named_and_gone_back_behind_if_asked(run, calm):
    files = (run / "checkpoints" / "7" / "model").rglob("*")
    path = max((p for p in files if p.is_file()), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamageError, match=rf"7 is damaged .*{path.name}.*step 6 is whole"):
        go(run)
    assert steps(run / "checkpoints") == [3, 6, 7]
    same(go(run, fall_back=True), calm)
    assert (run / "checkpoints" / "7.damaged").is_dir()


def test_a_save_that_fails_stops_the_run_and_costs_no_bit(tmp_path, calm, monkeypatch):
    write = manifest.write

    def full(target, content):
        if content["step"] == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(target, content)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", full)
        with pytest.raises(CheckpointError, match=r"step 6 could not .*free space.*step 3 is comp"):
            go(tmp_path)
    assert steps(tmp_path / "checkpoints") == [3]
    same(go(tmp_path), calm)


def test_the_best_steps_stay_by_an_evaluation_that_runs_before_the_save(tmp_path):
    scores = {3: 0.9, 6: 0.1, 9: 0.5, 12: 0.2}
    evaluate = lambda step, probes: Evaluation({"score": scores[step]})  # noqa: E731
    go(tmp_path, evaluate=evaluate, keep=1, keep_best=2, best_metric="eval/score")
    folder = tmp_path / "checkpoints"
    assert steps(folder) == [3, 9, 12]
    noted = [manifest.read(folder / str(step))["metrics"]["eval/score"] for step in (3, 9, 12)]
    assert noted == [0.9, 0.5, 0.2]


def scored(step, probes):
    """An evaluation by which the weights of a step can be told from those of another."""
    return Evaluation({"score": float(np.sum(probes["apply"](np.ones((2, 16), np.float32))))})


def found(workdir):
    """What a run has recorded, without times, and the metrics of the steps that it has kept."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in rows]
    folder = workdir / "checkpoints"
    return rows, {step: manifest.read(folder / str(step))["metrics"] for step in steps(folder)}


RANKED = {"evaluate": scored, "keep": 1, "keep_best": 2, "best_metric": "eval/score"}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """What an undisturbed run has found with an evaluation before every save."""
    devices, workdir = jax.devices(), tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: devices[:1])
        go(workdir, **RANKED)
    return found(workdir)


@pytest.mark.parametrize("at", [6, NUM_STEPS])
def test_an_evaluation_that_a_signal_came_before_is_made_up(tmp_path, monkeypatch, at, evaluated):
    class Asked(loop.Pace):
        """A signal comes at this step."""

        calls = 0

        def next(self):
            Asked.calls += 1
            return Asked.calls == at, 0.0

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Pace", Asked)
        with pytest.raises(Stopped, match=f"saved at step {at};"):
            go(tmp_path, **RANKED)
    rows, metrics = found(tmp_path)
    assert rows == [row for row in evaluated[0] if row["step"] <= at][:-1]
    assert not [name for name in metrics[at] if "eval" in name]
    with monkeypatch.context() as patch:  # killed with the record written, the manifest not
        patch.setattr(loop.Checkpoints, "amend", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            go(tmp_path, **RANKED)
    assert len(found(tmp_path)[0]) == len(rows) + 1
    go(tmp_path, **RANKED)
    assert found(tmp_path) == evaluated


def test_a_stop_where_nothing_is_due_leaves_no_row_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Pace, "next", lambda self: (True, 0.0))
    with pytest.raises(Stopped, match="saved at step 1;"):
        go(tmp_path, evaluate=scored, log_every_steps=0)
    assert found(tmp_path)[0] == [] and steps(tmp_path / "checkpoints") == [1]
    assert not newest(tmp_path / "checkpoints")[1]["owes_evaluation"]


def test_minutes_are_a_cadence_too(tmp_path, monkeypatch):
    class Slow(loop.Pace):
        """A step takes 25 seconds."""

        calls = 0

        def next(self):
            Slow.calls += 1
            return False, 25.0 * Slow.calls

    monkeypatch.setattr(loop, "Pace", Slow)
    go(tmp_path, every_steps=0, every_minutes=1.0)
    # at 25, 75 - 25 ... the first look starts the clock
    assert steps(tmp_path / "checkpoints") == [4, 7, 10, 12]


STUCK_SOURCE = """
import sys, time
from pathlib import Path
from tests.train.toys import NetTask, Numbered, batches, net_config
from train.loop import train
from train.supervision import supervised
from train.supervision.watchdog import Deadlines

class Stuck(Numbered):
    def __getitem__(self, i):
        if i >= 40:
            wait_for_a_disk_that_is_gone()
        return super().__getitem__(i)

def wait_for_a_disk_that_is_gone():
    time.sleep(600)

dataset = batches([Stuck(1024)], dict, batch_size=8, seed=1, shuffle=False)
with supervised(deadlines=Deadlines(data=4.0)):
    train(NetTask(), dataset, net_config(30, mesh={"data": 1}), Path(sys.argv[1]))
"""


def test_a_stuck_source_ends_the_process_and_is_said_to_be_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STUCK_SOURCE, str(tmp_path)], cwd=ROOT, capture_output=True,
        text=True, timeout=120, env={**os.environ, "XLA_FLAGS": COMPILED_QUICKLY},
    )  # fmt: skip
    assert done.returncode == STUCK, done.stderr[-2000:]
    said = re.search(
        r"is stuck: phase data has lasted (\S+) s and its deadline is 4 s", done.stderr
    )
    assert said and 4 <= float(said[1]) < 10
    assert "in wait_for_a_disk_that_is_gone" in done.stderr
