"""A process that is alone adds up as several do, if it can, and ends as it is told to."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import COMPILED_QUICKLY
from train.distributed import ClusterConfig, ClusterError

TOY = Path(__file__).with_name("collectives_toy.py")


def alone(how, devices, code):
    """What it found, whether Gloo spoke, and what it said on stderr."""
    env = {
        **os.environ, "XLA_FLAGS": COMPILED_QUICKLY, "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, TOY, how, str(code)], env=env, text=True, capture_output=True, timeout=120
    )
    assert done.returncode == code, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("found ")]
    found = json.loads(line.removeprefix("found "))
    assert found["told"] == [1, 1, False]  # JAX knows of no cluster
    summed, values = np.float32(found["sum"]), np.float32(found["values"])
    np.testing.assert_allclose(summed, values.sum(0), rtol=1e-3, atol=1e-5)
    in_rank_order = values[0]
    for row in values[1:]:
        in_rank_order = in_rank_order + row
    return np.array_equal(summed, in_rank_order), "[Gloo]" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("how", "devices", "code"), [("gloo", 4, 0), ("stopped", 4, 3), ("xla", 4, 0), ("gloo", 1, 7)]
)
def test_one_process_adds_up_as_it_is_told(how, devices, code):
    in_rank_order, gloo, said = alone(how, devices, code)
    uses_gloo = how != "xla" and devices > 1
    assert (gloo, in_rank_order) == (uses_gloo, not uses_gloo)
    assert "XLA's order" not in said


def test_without_a_loopback_it_is_said_once_and_xla_adds_up():
    in_rank_order, gloo, said = alone("broken", 4, 0)
    assert in_rank_order and not gloo
    assert said.count("no loopback here") == said.count("XLA's order") == 1
    assert "config.cluster.collectives=xla" in said


def test_unknown_collectives_are_refused():
    with pytest.raises(ClusterError, match=r"'mpi' are unknown: give gloo or xla"):
        ClusterConfig.from_environment(collectives="mpi")
