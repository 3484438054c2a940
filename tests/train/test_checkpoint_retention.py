"""Which steps stay, in which order others go, and that a reader keeps what it reads."""

import json
import os
import time

import pytest

from tests.train.saving_toys import quiet, toy
from train.checkpoint import (
    CheckpointConfig,
    CheckpointError,
    load_weights,
    pinned,
    retention,
    steps,
)
from train.checkpoint.retention import GoneError, kept

ACCURACY = {
    step: {"accuracy": a}
    for step, a in zip(
        range(10, 90, 10), [0.1, 0.9, 0.5, 0.9, 0.2, float("nan"), 0.3, 0.4], strict=True
    )
}


@pytest.mark.parametrize(
    ("rules", "stay"),
    [
        ({"keep": 1}, {80}),
        ({"keep": 3}, {60, 70, 80}),
        ({"keep": 9}, set(ACCURACY)),
        ({"keep": 1, "keep_every_steps": 30}, {30, 60, 80}),
        ({"keep": 1, "keep_best": 1}, {40, 80}),  # the newer of two equal ones
        ({"keep": 1, "keep_best": 3}, {20, 30, 40, 80}),
        ({"keep": 2, "keep_best": 2, "best_mode": "min"}, {10, 50, 70, 80}),
        ({"keep": 1, "keep_best": 1, "keep_every_steps": 50}, {40, 50, 80}),
    ],
)
def test_a_step_that_any_rule_keeps_stays(rules, stay):
    best = {"best_metric": "accuracy"} if "keep_best" in rules else {}
    assert kept(ACCURACY, CheckpointConfig(**rules, **best)) == stay


def test_a_step_without_the_metric_is_no_best_one():
    config = CheckpointConfig(keep=1, keep_best=2, best_metric="accuracy")
    assert kept({1: {"loss": 9.0}, 2: {"accuracy": 0.1}, 3: {}}, config) == {2, 3}


def test_a_metric_that_no_save_has_is_told_once(tmp_path, caplog):
    with quiet(tmp_path, keep_best=1, best_metric="acuracy") as saves:
        saves.save(toy(1), 1, metrics={"accuracy": 0.5, "loss": 1.0})
        saves.save(toy(2), 2, metrics={"accuracy": 0.6})
    assert caplog.text.count("no acuracy to rank it by; it has: accuracy, loss") == 1
    assert caplog.text.count("to rank it by") == 1


def test_the_best_stay_over_a_restart(tmp_path):
    rules = {"keep": 1, "keep_best": 1, "best_metric": "accuracy"}
    with quiet(tmp_path, **rules) as saves:
        for step, accuracy in [(1, 0.5), (2, 0.9), (3, 0.1)]:
            saves.save(toy(step), step, metrics={"accuracy": accuracy})
    assert steps(tmp_path) == [2, 3]
    with quiet(tmp_path, **rules) as saves:
        saves.restore(toy())
        saves.save(toy(4), 4, metrics={"accuracy": 0.8})
    assert steps(tmp_path) == [2, 4]


def test_what_is_pinned_stays_until_it_is_released(tmp_path):
    with quiet(tmp_path, keep=1) as saves:
        saves.save(toy(1), 1)
        saves.wait()
        with pinned(tmp_path, 1) as target, pinned(tmp_path, 1):
            for step in (2, 3):
                saves.save(toy(step), step)
                saves.wait()
            assert steps(tmp_path) == [1, 3] and (target / "model").exists()
            assert load_weights(tmp_path, step=1)[2]["step"] == 1
            assert not (target / "doomed").exists()
            (pin, _) = sorted((target / "pins").iterdir())
            assert json.loads(pin.read_text())["pid"] == os.getpid()
        saves.save(toy(4), 4)
    assert steps(tmp_path) == [4] and sorted(p.name for p in tmp_path.iterdir()) == ["4"]


def test_a_pin_that_is_too_old_holds_nothing(tmp_path):
    with quiet(tmp_path, keep=1, pin_hours=1.0) as saves:
        saves.save(toy(1), 1)
        saves.wait()
        (tmp_path / "1" / "pins").mkdir()
        pin = tmp_path / "1" / "pins" / "gone-1-x.json"
        pin.write_text(json.dumps({"host": "gone", "pid": 1, "time": time.time() - 3500}))
        saves.save(toy(2), 2)
        saves.wait()
        assert steps(tmp_path) == [1, 2]
        pin.write_text(json.dumps({"host": "gone", "pid": 1, "time": time.time() - 3700}))
        saves.save(toy(3), 3)
    assert steps(tmp_path) == [3]


def test_a_reader_and_a_deletion_that_meet_do_not_both_go_on(tmp_path, monkeypatch):
    with quiet(tmp_path, keep=2) as saves:
        saves.save(toy(1), 1)
        saves.save(toy(2), 2)
    target = tmp_path / "1"
    # the reader comes between the mark and the look for pins: the deletion lets go
    look, held = retention.live_pins, []

    def late(*args):
        held.append(pinned(tmp_path, 1))
        monkeypatch.setattr(retention, "_outlast", lambda _: None)  # it would wait for the mark
        held[0].__enter__()
        return look(*args)

    with monkeypatch.context() as patch:
        patch.setattr(retention, "live_pins", late)
        assert not retention.remove_unless_pinned(target, 1.0)
    held[0].__exit__(None, None, None)
    monkeypatch.undo()
    # the reader comes after the look: it is told to take another step
    (target / "doomed").touch()
    monkeypatch.setattr(retention, "_PATIENCE_S", 0.05)
    with pytest.raises(GoneError, match="is being deleted"), pinned(tmp_path, 1):
        raise AssertionError
    assert retention.remove_unless_pinned(target, 1.0)
    with (
        pytest.raises(CheckpointError, match=r"no complete step any more.*there: 2"),
        pinned(tmp_path, 1),
    ):
        raise AssertionError
    # the mark of a process that died is no deletion
    (tmp_path / "2" / "doomed").touch()
    os.utime(tmp_path / "2" / "doomed", (0, 0))
    with pinned(tmp_path, 2) as target:
        assert target.exists()


def test_half_a_step_is_never_seen(tmp_path, monkeypatch):
    """When the files go, the step has another name already."""
    with quiet(tmp_path, keep=1) as saves:
        saves.save(toy(1), 1)
        saves.wait()
        seen = []
        rmtree = retention.shutil.rmtree

        def watch(path, **how):
            seen.append((path.name, steps(tmp_path)))
            rmtree(path, **how)

        monkeypatch.setattr(retention.shutil, "rmtree", watch)
        saves.save(toy(2), 2)
        saves.wait()
    assert ("1.deleted", [2]) in seen and all(name != "1" for name, _ in seen)


def test_a_reader_finds_the_newer_step_when_its_own_goes(tmp_path, monkeypatch):
    with quiet(tmp_path, keep=2) as saves:
        saves.save(toy(1), 1)
        saves.save(toy(2), 2)
    calls = []
    real = retention._outlast

    def gone_once(target):
        calls.append(target.name)
        if len(calls) == 1:
            raise GoneError("gone")
        real(target)

    monkeypatch.setattr(retention, "_outlast", gone_once)
    assert load_weights(tmp_path)[2]["step"] == 2 and calls == ["2", "2"]
    assert not list((tmp_path / "2" / "pins").iterdir())
