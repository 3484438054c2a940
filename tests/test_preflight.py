"""Preflight: a run compiled for machines that are not here, checked against a count by hand."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import pipeline
from blueprint import vocab
from pipeline.abstract import abstract_run
from tests.bundles import COMPILED_QUICKLY
from train.config import ConfigError, load
from train.hardware import preset
from train.preflight import compiling as preflight
from train.preflight import roofline
from train.preflight.work import Collective, Work

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "configs" / "tiny"


def ask(*arguments, **env):
    command = [sys.executable, "scripts/preflight.py", *map(str, arguments)]
    env = {**os.environ, "XLA_FLAGS": COMPILED_QUICKLY, **env}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_the_tiny_planner_on_eight_devices_is_as_counted_by_hand(tmp_path):
    report, rows = tmp_path / "made" / "report.json", 8
    done = ask("--config", TINY / "planner.py", "--target", "cpu:8", "--json", report,
               "--no-generation", "--hbm-gb", 1e-5, f"--config.data.batch_size={rows}")  # fmt: skip
    assert done.returncode == 1, done.stderr
    said = json.loads(report.read_text())
    assert said["mesh"] == {"data": 8} and not said["fits"] and not said["estimate"]
    assert "DOES NOT FIT" in done.stdout and "change: the state alone takes" in done.stdout

    D, L, N, K, H, F, V, T = 16, 2, 4, 2, 8, 32, vocab.SIZE, 416
    matrices = L * (2 * D * N * H + 2 * D * K * H + 3 * D * F) + V * D
    vectors = L * (2 * D + 2 * H) + D
    parts = said["hbm_parts_gb"]
    assert parts["parameters"] * 1e9 == pytest.approx(4 * (matrices + vectors))
    # Adam keeps two arrays of a parameter, Muon one of a matrix; four counters beside them
    hidden = matrices - V * D
    assert parts["optimizer"] * 1e9 == pytest.approx(4 * (2 * (V * D + vectors) + hidden), abs=64)
    assert parts["batch"] * 1e9 == pytest.approx(rows / 8 * T * (4 + 1))
    # 6ND, and the attention's two products, of a loss that learns all positions; half of the pairs
    # of positions are the model's, and the plain kernel multiplies all
    pairs = 3 * rows * L * 4 * T * T * N * H
    flops = 6 * rows * T * matrices + pairs
    assert said["model_flops_per_step"] == pytest.approx(flops - pairs / 2, rel=0.01)
    assert said["flops_per_step"] == pytest.approx(flops, rel=0.03)  # Muon's products beside them
    # every gradient once around the ring in float32, that of the tied table twice: as the lookup's
    # and as the head's
    sent = said["collective_bytes_per_chip"]
    assert set(sent) == {"all-reduce"} and set(sent["all-reduce"]) == {"data"}
    gradients = 4 * (matrices + vectors + V * D)
    assert sent["all-reduce"]["data"] == pytest.approx(2 * 7 / 8 * gradients, rel=0.01)
    assert said["roofline_step_s"] is None and said["mfu_bound"] is None  # a CPU has no known peak


@pytest.mark.parametrize("name", ["planner", "tokenizer", "recogniser"])
def test_shapes_are_those_of_the_first_batch(name):
    config = load(TINY / f"{name}.py")
    first = pipeline.run(config).dataset[0]
    run = abstract_run(config)
    assert {n: (a.shape, a.dtype) for n, a in run.batch.items()} == {
        n: (a.shape, a.dtype) for n, a in first.items()
    }
    assert run.loop == pipeline.run(config).loop


def test_a_decoder_needs_no_data():
    run = abstract_run(load(TINY / "decoder.py"))
    assert run.batch["codes"].shape == (4, 16, 16, 12) and run.batch["codes"].dtype == np.uint8
    assert set(run.batch) == {"codes", *run.task.conditions}
    loss = jax.eval_shape(
        lambda batch: run.task.loss(run.task.init(_rngs()), batch, jax.random.key(0))[0],
        dict(run.batch),
    )
    assert loss.shape == ()
    config = load(TINY / "decoder.py")
    config.task = "decorator"
    with pytest.raises(ConfigError, match="'decorator' is not one of"):
        abstract_run(config)


def _rngs():
    from flax import nnx

    return nnx.Rngs(0)


def test_targets():
    assert preflight.target("v5p:8x8x8").num_devices == 512
    assert preflight.target("v6e:16x16").is_tpu and not preflight.target("h100:64").is_tpu
    for bad, words in {
        "v9:2x2": "there is no kind 'v9'",
        "v5p:512": "v5p:8x8x8",
        "cpu": "cpu:8",
    }.items():
        with pytest.raises(ValueError, match=words):
            preflight.target(bad)


def test_a_rematerialisation_is_heard():
    devices = np.array(jax.devices()[:8]).reshape(2, 2, 2)
    mesh = Mesh(devices, ("a", "b", "c"), axis_types=(AxisType.Auto,) * 3)
    place = lambda *spec: NamedSharding(mesh, PartitionSpec(*spec))  # noqa: E731
    table = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=place("c", "b"))
    ids = jax.ShapeDtypeStruct((4, 6), jnp.int32, sharding=place(("a", "b")))

    def looked_up(table, ids):  # in a table that lies along the ids' own axis: `layers.embedding`
        return jax.lax.with_sharding_constraint(table[ids], place(("a", "b")))

    heard = preflight.compiled(lambda: jax.jit(looked_up).lower(table, ids), 8).warnings
    assert heard and all(preflight.REMATERIALISED in line for line in heard)
    quiet = preflight.compiled(lambda: jax.jit(jnp.sin).lower(table), 8)
    assert quiet.warnings == () and quiet.argument_bytes == 32 * 16


def test_bounds_and_remedies():
    gather = Collective("all-gather", tuple(range(8)), 1, 450 * 10**9)
    far = dataclasses.replace(gather, group=tuple(range(16)), wire_bytes=100 * 10**9)
    chip = preset("h100")
    did = Work(int(989.4e12), int(3350e9 / 2), (gather, far), 0)
    limits = roofline.bounds(did, chip)
    assert (limits.compute_s, limits.hbm_s) == pytest.approx((1, 0.5))
    assert limits.interconnect_s == pytest.approx(1 + 2)  # the second leaves its node
    assert (limits.what, limits.step_s) == ("interconnect", pytest.approx(3))
    assert roofline.bounds(did, preset("cpu")).step_s is None

    program = preflight.Program(1.0, 10, 20, needed_bytes=int(70e9), work=did)
    assert roofline.report(program, chip, {"fsdp": 16})["fits"]
    assert not roofline.report(program, dataclasses.replace(chip, hbm_bytes=6e10), {"fsdp": 16})[
        "fits"
    ]

    parts = {"parameters": 1.0, "activations and temporaries": 9.0}
    assert "remat=full" in roofline.remedy(parts, 8.0, "dots")
    assert "batch_size" in roofline.remedy(parts, 8.0, "full")
    assert "fsdp" in roofline.remedy({"parameters": 9.0}, 8.0, "none")


@pytest.mark.skipif(not preflight.has_libtpu(), reason="libtpu is not installed")
def test_the_tiny_planner_for_four_tpus(tmp_path):
    report = tmp_path / "report.json"
    done = ask("--config", TINY / "planner.py", "--target", "v5e:2x2", "--json", report,
               "--no-generation", "--config.data.batch_size=4")  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(report.read_text())
    assert said["fits"] and said["hbm_per_chip_gb"] < 1 and 0 < said["mfu_bound"] < 1
    assert math.isclose(said["flops_per_step"], said["model_flops_per_step"], rel_tol=0.05)
    assert "all-reduce" in said["collective_bytes_per_chip"]
