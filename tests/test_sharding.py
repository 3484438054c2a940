"""Planner and decoder on a mesh of all three axes: the real step finds what one device finds, and
XLA never gives up on a sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from decoder.task import DecoderTask
from layers.axes import use_rules
from layers.block import BlockConfig
from planner.model import PlannerConfig
from planner.task import PlannerTask
from tests.decoder import pages
from train import mesh as meshes
from train.feeding import place_batch
from train.optimizer import OptimizerConfig
from train.plan import LoopConfig, plan

CUBE = {"data": 2, "fsdp": 2, "tensor": 2}
BLOCKS = BlockConfig(
    width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_size=8, hidden=64, qk_norm=True
)
ADAMW = OptimizerConfig("adamw", 1e-3)
MUON = OptimizerConfig("muon", 0.02, clip=1.0)
FELL_BACK = "full rematerialization"  # what XLA's partitioner says on standard error


def planner():
    task = PlannerTask(PlannerConfig(BLOCKS, 128, 64, remat="dots"))
    ids = np.random.default_rng(0).integers(1, 128, (8, 48), dtype=np.int32)
    return task, {"ids": ids, "planned": np.arange(48) > np.full((8, 1), 10)}


def masked():
    task = DecoderTask(pages.config(objective="masked", remat="dots"))
    return task, {name: np.asarray(x) for name, x in pages.batch(8).items()}


def run(task, batch, shape, rules):
    """Two steps: the scalars of each, and the last parameters. Muon is the planner's, since its
    program takes long to compile."""
    hidden = MUON if isinstance(task, PlannerTask) else ADAMW
    config = LoopConfig(2, {"hidden": hidden, "rest": ADAMW}, mesh=shape, rules=rules)
    mesh = meshes.build(shape, jax.devices()[: np.prod(list(shape.values()))])
    with jax.set_mesh(mesh), use_rules(rules):
        planned = plan(task, config, mesh)
        state, rows = planned.materialise(), []
        for _ in range(2):
            state, scalars = planned.step(state, place_batch(batch, mesh, rules))
            rows.append(jax.device_get(scalars))
    return rows, jax.device_get(state.params)


@pytest.mark.parametrize("make", [planner, masked], ids=lambda f: f.__name__)
def test_eight_devices_find_what_one_finds_and_nothing_is_rematerialised(make, capfd):
    task, batch = make()
    rows, params = run(task, batch, CUBE, meshes.RULES)
    assert FELL_BACK not in capfd.readouterr().err
    wanted, by_one = run(task, batch, {"data": 1}, {"B": "data"})
    for found, row in zip(rows, wanted, strict=True):
        for name in ("loss", "gradient_norm"):
            np.testing.assert_allclose(found[name], row[name], rtol=1e-4, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), params, by_one)


def test_a_fall_back_would_be_heard(capfd):
    """The control: a lookup in a table cut both ways, by ids cut as its columns are."""
    mesh = meshes.build(CUBE)
    table = jax.device_put(jnp.ones((32, 16)), NamedSharding(mesh, jax.P("tensor", "fsdp")))
    ids = jax.device_put(jnp.ones((8, 6), int), NamedSharding(mesh, jax.P(("data", "fsdp"))))
    out = NamedSharding(mesh, jax.P(("data", "fsdp")))
    jax.jit(lambda table, ids: table[ids], out_shardings=out)(table, ids)
    assert FELL_BACK in capfd.readouterr().err
