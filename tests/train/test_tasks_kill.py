"""Each of the four tasks, killed on the way and started again, ends in the bits of a calm run."""

import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.bundles import finish, start, tiny_bundle, training


def arrays(workdir):
    """Every array of the last checkpoint, the optimizer's too."""
    found = {}
    for part in ("model", "optimizer"):
        reader = ocp.PyTreeCheckpointer()
        tree = reader.restore(workdir / "checkpoints" / "6" / part)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            found[part + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return found


# A tokenizer's steps take as long as there are pixels.
SMALL = {"tokenizer": ("--config.data.page.width_px=96", "--config.data.page.height_px=96")}


@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize("task", ["tokenizer", "planner", "decoder", "recogniser"])
def test_a_killed_run_ends_in_the_same_bits(tmp_path, task, num_devices):
    bundle = tiny_bundle() if task == "decoder" else tmp_path  # only it needs another's codes

    def run(name):
        arguments = training(task, tmp_path / name, bundle)
        told = ("--config.data.batch_size=8", *SMALL.get(task, ()))
        return start("train", *arguments, *told, num_devices=num_devices)

    finish(run("calm"))
    process = run("killed")
    manifest = tmp_path / "killed" / "checkpoints" / "2" / "manifest.json"
    deadline = time.time() + 300
    while not manifest.exists():
        assert process.poll() is None and time.time() < deadline, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    finish(run("killed"))
    calm, killed = arrays(tmp_path / "calm"), arrays(tmp_path / "killed")
    assert set(calm) == set(killed) and len(calm) > 20
    for name, array in calm.items():
        np.testing.assert_array_equal(array, killed[name], err_msg=name)
