"""SIGKILL at a random moment, again and again, and SIGTERM change no bit of where a run ends."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import environment
from train.checkpoint import steps
from train.exits import STOPPED

TOY = Path(__file__).with_name("toy_run.py")
READ = """
import sys
import jax, numpy as np
from pathlib import Path
from train.checkpoint import load_weights
assert len(jax.devices()) == 1
final = np.load(sys.argv[2])
for ema, prefix in [(True, ".ema"), (False, ".params")]:
    weights, extra, manifest = load_weights(Path(sys.argv[1]), ema=ema)
    for path, leaf in jax.tree_util.tree_flatten_with_path(weights)[0]:
        assert type(leaf) is np.ndarray
        np.testing.assert_array_equal(leaf, final[prefix + jax.tree_util.keystr(path)])
    np.testing.assert_array_equal(extra["seen"], final[".extra['seen']"])
print(manifest["step"])
"""


def start(workdir, num_devices, num_steps=30):
    command = [sys.executable, str(TOY), str(workdir), str(num_devices), str(num_steps)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=environment(num_devices),
    )  # fmt: skip


def finish(process):
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]


def end_in_training(workdir, num_devices, signum, *, delay_s=0.0):
    """Send a signal `delay_s` after the process has begun one save more than the run had before."""
    folder = workdir / "checkpoints"
    before = {p.name for p in folder.glob("*")}
    process = start(workdir, num_devices)
    deadline = time.time() + 300
    while {p.name for p in folder.glob("*")} <= before and time.time() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    time.sleep(delay_s)
    process.send_signal(signum)
    _, err = process.communicate(timeout=300)
    wanted = -signum if signum == signal.SIGKILL else STOPPED
    assert process.returncode == wanted, f"it ended before it was sent a signal: {err[-2000:]}"


@pytest.mark.parametrize("num_devices", [1, 8])
def test_killed_runs_end_in_the_same_bits(tmp_path, num_devices):
    finish(start(tmp_path / "calm", num_devices))
    moments = [random.SystemRandom().uniform(0, 0.4) for _ in range(2)]
    print("killed after", moments)
    for delay_s in moments:
        end_in_training(tmp_path / "killed", num_devices, signal.SIGKILL, delay_s=delay_s)
        assert not (tmp_path / "killed" / "final.npz").exists()
    before = steps(tmp_path / "killed" / "checkpoints")
    end_in_training(tmp_path / "killed", num_devices, signal.SIGTERM)
    assert steps(tmp_path / "killed" / "checkpoints")[-1] > max(before, default=0)
    finish(start(tmp_path / "killed", num_devices))
    calm, killed = (np.load(tmp_path / name / "final.npz") for name in ("calm", "killed"))
    assert set(calm.files) == set(killed.files) and len(calm.files) > 20
    for name in calm.files:
        np.testing.assert_array_equal(calm[name], killed[name], err_msg=name)

    # What eight devices wrote, a process with one reads, without knowing the optimizer.
    env = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(TOY.parents[2])}
    paths = [str(tmp_path / "killed" / name) for name in ("checkpoints", "final.npz")]
    read = subprocess.run(
        [sys.executable, "-c", READ, *paths], env=env, capture_output=True, text=True
    )
    assert read.returncode == 0, read.stderr[-2000:]
    assert read.stdout.strip() == "30"
