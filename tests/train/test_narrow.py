"""Under bfloat16 activations, what a run keeps and what it sums over devices stays float32."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers.axes import use_rules
from tests.train.test_placement import RULES, abstract_state, flat
from tests.train.test_step import planner_case
from tests.train.toys import loop_config
from train import mesh as meshes
from train.feeding import place_batch
from train.plan import plan

NARROW = ("--config.model.blocks.dtype=bfloat16",)
KERNELS = re.compile(r"f32\[[^ ]* all-reduce\(.*->(DNH|DKH|NHD|DF|FD)/dot_general")


@pytest.mark.parametrize("model", ["planner", "decoder"])
def test_parameters_moments_and_averages_stay_float32(model):
    state = abstract_state(model, "adafactor", NARROW)
    for path, leaf in flat(state):
        assert leaf.dtype in (jnp.float32, jnp.int32, jnp.bool_), path
    assert state.guard["norm"].dtype == jnp.float32


def test_gradients_are_summed_over_devices_in_float32(tmp_path):
    """In the program as it is partitioned, for the CPU's later passes would hide bfloat16."""
    task, batch = planner_case()
    blocks = dataclasses.replace(task.model.blocks, dtype="bfloat16")
    task = dataclasses.replace(task, model=dataclasses.replace(task.model, blocks=blocks))
    shape = {"data": 2, "fsdp": 4}
    config, mesh = loop_config(4, mesh=shape, rules=RULES), meshes.build(shape)
    with jax.set_mesh(mesh), use_rules(RULES):
        planned = plan(task, config, mesh)
        placed = place_batch(batch, mesh, RULES)
        after, scalars = jax.eval_shape(planned.step, planned.abstract, placed)
        planned.step.lower(planned.abstract, placed).compile(
            compiler_options={
                "xla_dump_to": str(tmp_path), "xla_dump_hlo_pass_re": "spmd-partitioning",
            }
        )  # fmt: skip
    for (path, a), b in zip(flat(after), jax.tree.leaves(planned.abstract), strict=True):
        assert a.dtype == b.dtype, path
    assert scalars.array.dtype == np.float32 and {"loss", "gradient_norm"} <= set(scalars.names)
    (program,) = tmp_path.glob("*after_spmd-partitioning*")
    lines = program.read_text().splitlines()
    assert any(re.search(r"= bf16\[.* dot\(", line) for line in lines)  # it does compute in it
    reduced = [line for line in lines if " all-reduce(" in line]
    assert not [line for line in reduced if "bf16[" in line.split("all-reduce(")[0]]
    assert {found[1] for line in reduced if (found := KERNELS.search(line))} == {
        "DNH", "DKH", "NHD", "DF", "FD",
    }  # fmt: skip
