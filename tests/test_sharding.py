"""Planner and decoder on a mesh of all three axes: the real step finds what one device finds, and
XLA never gives up on a sharding."""

from pathlib import Path

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


def places(state):
    """A line for each array: what it is called, its size, and the axes that cut each dimension."""
    lines = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        cut = ["+".join((a,) if isinstance(a, str) else a or "-") for a in leaf.sharding.spec]
        lines.append(f"{name} {'x'.join(map(str, leaf.shape)) or 'scalar'} {' '.join(cut)}".strip())
    return lines


@pytest.mark.parametrize("make", [planner, masked], ids=lambda f: f.__name__)
def test_every_array_lies_where_it_lay(make):
    """Parameters, averages and moments under the reference mesh and rules, as text."""
    config = LoopConfig(2, {"hidden": MUON, "rest": ADAMW}, ema_decay=0.9, rules=meshes.RULES)
    mesh = meshes.build(CUBE)
    with jax.set_mesh(mesh), use_rules(meshes.RULES):
        text = "\n".join(places(plan(make()[0], config, mesh).abstract)) + "\n"
    golden = Path(__file__).parent / "golden" / f"places_{make.__name__}.txt"
    assert golden.is_file(), f"{golden} is missing; the places are now:\n{text}"
    assert golden.read_text() == text


def test_a_fall_back_would_be_heard(capfd):
    """The control: a lookup in a table cut both ways, by ids cut as its columns are."""
    mesh = meshes.build(CUBE)
    table = jax.device_put(jnp.ones((32, 16)), NamedSharding(mesh, jax.P("tensor", "fsdp")))
    ids = jax.device_put(jnp.ones((8, 6), int), NamedSharding(mesh, jax.P(("data", "fsdp"))))
    out = NamedSharding(mesh, jax.P(("data", "fsdp")))
    jax.jit(lambda table, ids: table[ids], out_shardings=out)(table, ids)
    assert FELL_BACK in capfd.readouterr().err
