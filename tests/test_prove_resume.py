"""The proof of resuming: it holds for two processes, and what it compares with can fail."""

import json
import os
import random
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from scripts import prove_resume
from scripts.proof import evidence
from scripts.proof.sight import Glance, Sight, durations
from scripts.proof.starts import Blow, Outcome
from tests.bundles import CACHE, COMPILED_QUICKLY, ROOT
from train import guard
from train.checkpoint import Checkpoints
from train.exits import STOPPED
from train.state import State


def test_two_processes_struck_twice_end_in_the_same_bits(tmp_path):
    environment = {
        **os.environ, "XLA_FLAGS": COMPILED_QUICKLY, "JAX_COMPILATION_CACHE_DIR": str(CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }  # fmt: skip
    overrides = ("num_steps=12", "checkpoint.every_steps=3", "ema_decay=0.9")
    script, config = ROOT / "scripts/prove_resume.py", ROOT / "configs/tiny/recogniser.py"
    ran = subprocess.run(
        [sys.executable, str(script), "--config", str(config), "--processes", "2", "--kills", "2",
         "--out", str(tmp_path / "out"), "--json", str(tmp_path / "found.json"),
         *(f"--config.loop.{override}" for override in overrides)],
        env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["kills"] == 2 and found["identical"] and found["as_expected"]
    assert [row["step"] for row in found["rows"] if "step" in row] == list(range(1, 13))
    hashed = {row["what"]: row["killed"] for row in found["rows"] if "what" in row}
    assert set(hashed) == {"params", "extra", "opt", "ema", "guard", "step", "data position"}
    assert hashed["ema"] not in ("none", hashed["params"])
    by_signal = {event["signal"]: event for event in found["events"]}
    assert set(by_signal) == {"SIGKILL", "SIGTERM"}
    asked = by_signal["SIGTERM"]
    assert asked["exit_codes"] == [STOPPED, STOPPED]
    assert asked["saved"] >= asked["at_step"] > asked["went_on_from"]  # no step of it was lost
    assert by_signal["SIGKILL"]["hit"] == "save" and 137 in by_signal["SIGKILL"]["exit_codes"]


def saved_run(workdir, *, parameter=1.0, loss=2.0):
    """A workdir with one saved step and its record."""
    params, zero = {"kernel": jnp.asarray([parameter, 2.0])}, jnp.zeros((), jnp.int32)
    state = State(zero + 3, params, {}, {"count": zero}, {}, guard.fresh())
    with Checkpoints(workdir / "checkpoints", identity={}) as checkpoints:
        checkpoints.save(state, 3)
    rates = {"speed/steps_per_s": random.random()}
    record = {"step": 3, "loss": loss, "weight": 7.0, **rates}
    (workdir / "metrics.jsonl").write_text(json.dumps(record) + '\n{"step": 4, "lo')
    return workdir


def test_one_bit_of_the_state_or_of_a_loss_is_a_difference(tmp_path):
    calm = saved_run(tmp_path / "calm")
    same = saved_run(tmp_path / "same")
    one_bit = float(np.nextafter(np.float32(1.0), np.float32(2.0)))
    other = saved_run(tmp_path / "other", parameter=one_bit, loss=2.0 + 2.0**-40)
    ends = [evidence.ending(workdir) for workdir in (calm, same, other)]
    assert all(row["equal"] for row in evidence.compare(ends[0], ends[1]))
    assert [r["what"] for r in evidence.compare(ends[0], ends[2]) if not r["equal"]] == ["params"]
    [row] = evidence.losses(calm, same)
    assert row["equal"] and row["step"] == 3
    [row] = evidence.losses(calm, other)
    assert row["differing"] == ["loss"] and row["relative"] == 2.0**-41
    assert evidence.same_data(calm, other)


def test_a_missing_step_or_evaluation_is_a_difference(tmp_path):
    def write(name, lines):
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "metrics.jsonl").write_text(text)
        return tmp_path / name

    first, second = {"step": 1, "loss": 1.0, "weight": 5}, {"step": 2, "loss": 0.5, "weight": 6}
    calm = write("calm", [first, second, {"step": 2, "eval/iou": 0.5}])
    rows = evidence.losses(calm, write("short", [first]))
    assert [row["equal"] for row in rows] == [True, False]
    assert not evidence.same_data(calm, tmp_path / "short")
    rows = evidence.losses(calm, write("asked", [first, second]))
    assert [row["differing"] for row in rows] == [[], ["eval/iou"]]
    worse = write("worse", [first, second, {"step": 2, "eval/iou": 0.4}])
    assert evidence.losses(calm, worse)[1]["differing"] == ["eval/iou"]


def test_another_layout_is_judged_by_its_first_ten_steps_and_its_data(tmp_path):
    def write(name, losses, weight=5):
        (tmp_path / name).mkdir()
        lines = [{"step": s, "loss": x, "weight": weight} for s, x in losses.items()]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "metrics.jsonl").write_text(text)
        return tmp_path / name

    def found(workdir):
        return prove_resume.apart(calm, workdir, 4)

    calm = write("calm", dict.fromkeys(range(1, 21), 2.0))
    later = found(write("later", {s: 2.0 if s < 15 else 2.5 for s in range(5, 21)}))
    assert (later["early"], later["most"], len(later["rows"])) == (0.0, 0.25, 16)
    assert prove_resume.within(later, 1e-5)
    early = found(write("early", {s: 2.0 + 4e-5 * (s == 5) for s in range(5, 21)}))
    assert not prove_resume.within(early, 1e-5) and prove_resume.within(early, 3e-5)
    other_data = found(write("data", dict.fromkeys(range(5, 21), 2.0), weight=6))
    assert not prove_resume.within(other_data, 1.0)
    assert not prove_resume.within(found(write("cut", {5: 2.0})), 1.0)


def test_a_start_is_seen_in_its_phases(tmp_path):
    seen, evaluations = [], {2}

    def look(sight):
        seen.append(sight.look())
        return seen[-1].phase(0, evaluations)

    def record(line):
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    sight = Sight(tmp_path)
    assert look(sight) == "start"
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events").touch()
    assert look(sight) == "compile"
    record({"step": 1, "loss": 1.0})
    assert look(sight) == "step"
    record({"step": 2, "loss": 1.0})
    assert look(sight) == "evaluation"
    record({"step": 2, "eval/iou": 1.0})
    assert look(sight) == "step"
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp").mkdir(parents=True)
    assert look(sight) == "save"
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp").rename(tmp_path / "checkpoints" / "2")
    assert look(sight) == "save"
    (tmp_path / "checkpoints" / "2" / "manifest.json").touch()
    assert look(sight) == "step"
    lasted = durations([(float(i), glance) for i, glance in enumerate(seen)], evaluations)
    assert lasted == {"start": 1, "compile": 1, "step": 1, "evaluation": 1, "save": 2}
    assert look(Sight(tmp_path)) == "start"  # the next one has no log yet


def test_blows_fall_everywhere_and_leave_steps_for_those_after():
    lasted_s = dict.fromkeys(("start", "compile", "step", "evaluation", "save"), 1.0)
    rhythm = prove_resume.Rhythm(100, 10, frozenset({10, 20}), lasted_s)
    blows = prove_resume.draw(10, rhythm, 2, random.Random(0))
    assert {blow.phase for blow in blows} == set(lasted_s) and len(blows) == 10
    assert {blow.signum for blow in blows} == {signal.SIGKILL, signal.SIGTERM}
    assert {blow.process for blow in blows} == {0, 1}
    assert all(0 <= blow.wait_s <= 1 and blow.step <= 15 for blow in blows)
    assert blows == prove_resume.draw(10, rhythm, 2, random.Random(0))


@pytest.mark.parametrize(
    ("signum", "hit", "codes", "good"),
    [
        (signal.SIGTERM, ("step", 4), {"0": 75, "1": 75}, True),
        (signal.SIGTERM, ("step", 4), {"0": 137, "1": 75}, False),
        (signal.SIGTERM, ("start", 0), {"0": 143, "1": 134}, False),
        (signal.SIGTERM, ("start", 0), {"0": 134, "1": 143}, True),
        (signal.SIGKILL, ("step", 4), {"0": 134, "1": 137}, True),
        (signal.SIGKILL, None, {"0": 0, "1": 0}, False),
    ],
)
def test_a_sigterm_has_to_end_all_processes_alike(signum, hit, codes, good):
    outcome = Outcome(0, codes=codes, hit=hit)
    assert prove_resume.expected(Blow(signum, 1, "step"), outcome) is good


def test_a_glance_before_the_log_is_a_start_whatever_was_recorded_before():
    assert Glance(False, 8, False, False).phase(4, ()) == "start"
    assert Glance(True, 4, False, True).phase(4, ()) == "compile"
