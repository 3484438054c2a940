"""The dial of sizes: one number for a trunk, its parameters counted without any memory."""

import dataclasses

import jax
import pytest
from flax import nnx

from blueprint import vocab
from layers.block import Block, BlockConfig, Stack
from planner.model import PlannerConfig
from planner.task import PlannerTask
from train.config import build, load

SIZES = {  # depth: width, heads, kv heads, hidden, parameters of the trunk, of a planner of ours
    4: (256, 4, 2, 704, 2_951_168, 3_289_600),
    8: (512, 8, 4, 1408, 23_601_152, 24_278_016),
    12: (768, 12, 6, 2048, 77_875_200, 78_890_496),
    20: (1280, 20, 10, 3456, 363_776_000, 365_468_160),
    26: (1664, 26, 13, 4480, 797_528_576, 799_728_384),
}


def count(make):
    state = nnx.state(nnx.eval_shape(make))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.to_pure_dict(state)))


@pytest.mark.parametrize("depth", SIZES)
def test_a_depth_has_its_sizes_and_its_parameters(depth):
    width, heads, kv_heads, hidden, trunk, planner = SIZES[depth]
    blocks = BlockConfig(depth=depth)
    assert blocks == BlockConfig(width, depth, heads, kv_heads, 64, hidden)
    make = lambda r: Block(blocks, rngs=r)  # noqa: E731
    assert count(lambda: Stack(make, depth, rngs=nnx.Rngs(0))) == trunk
    task = PlannerTask(PlannerConfig(blocks, vocab.SIZE, 416))
    assert count(lambda: task.init(nnx.Rngs(0))) == planner
    # the table in the docstring, in millions
    said = " ".join((BlockConfig.__doc__ or "").split())
    assert f"{trunk / 1e6:.1f}" in said and f"{planner / 1e6:.1f}" in said and str(width) in said


def test_sizes_only_grow_and_divide():
    rows = [BlockConfig(depth=depth) for depth in range(1, 40)]
    for blocks in rows:
        assert blocks.width == blocks.num_heads * blocks.head_size
        assert blocks.num_heads == 2 * blocks.num_kv_heads
        assert blocks.hidden % 64 == 0 and 8 / 3 <= blocks.hidden / blocks.width < 8 / 3 + 0.5
    counted = [b.num_layers * b.width * (3 * b.width + 3 * b.hidden) for b in rows]
    assert counted == sorted(set(counted))


@pytest.mark.parametrize("name", ["planner", "decoder"])
def test_a_config_is_sized_by_one_override(name):
    config = load(f"configs/demo/{name}.py", ["--config.model.blocks.depth=12"])
    blocks = build(BlockConfig, config.model.blocks)
    plain = build(BlockConfig, load(f"configs/demo/{name}.py").model.blocks)
    assert (blocks.width, blocks.num_layers, blocks.qk_norm) == (768, 12, plain.qk_norm)
    assert plain.width == 128
    shallower = dataclasses.replace(blocks, num_layers=3)  # the dial does not turn back
    assert (shallower.num_layers, shallower.width) == (3, 768)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({}, "blocks have no width, num_layers, num_heads, num_kv_heads, head_size, hidden"),
        ({"depth": -1}, "depth -1 is not a number of layers"),
        ({"depth": 2, "dtype": "float16"}, "dtype 'float16' is not one of float32, bfloat16"),
    ],
)
def test_a_trunk_without_sizes_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        BlockConfig(**sizes)
