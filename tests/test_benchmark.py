"""The benchmark counts what a step reads, and says what it found."""

import json
import math

import jax
import pytest
from flax import nnx

from decoder.conditioning import ConditioningConfig
from decoder.config import DecoderConfig
from decoder.task import DecoderTask
from layers.block import BlockConfig
from scripts.bench.generation import SHAPES, ours
from tests.bundles import finish, start


@pytest.mark.parametrize("name", SHAPES)
def test_a_step_reads_all_weights_but_those_that_are_looked_up(name):
    shape = SHAPES[name]
    head = shape.width // shape.num_heads
    blocks = BlockConfig(
        shape.width, shape.num_layers, shape.num_heads, shape.num_heads, head, shape.hidden
    )
    config = DecoderConfig(
        blocks, 1, shape.codebook_size, ConditioningConfig(glyphs="off"), objective="causal",
        num_classes=1000,
    )  # fmt: skip
    model = nnx.eval_shape(lambda: DecoderTask(config).init(nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    sizes = {
        key: sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) for key, tree in params.items()
    }
    assert shape.weights_read == sizes["blocks"] + sizes["norm"] + sizes["head"]
    assert sizes.keys() == {"blocks", "norm", "head", "codes_in", "classes_in"}


def test_pages_differ_and_come_again():
    run = ours(SHAPES["tiny"], 2)
    first = run()
    assert first.shape == (2, 4, 4, 1) and (first[0] != first[1]).any()
    assert (run() == first).all()


def test_weights_of_fewer_bits_are_fewer_bytes():
    shape = SHAPES["tiny"]
    exact, half, quarter = (
        shape.step_bytes(1, weights=kind) for kind in ("float32", "bfloat16", "int8")
    )
    assert exact - half == 2 * shape.weights_read and half - quarter == shape.weights_read
    codes = ours(shape, 2, weights="int8")()
    assert codes.shape == (2, 4, 4, 1) and (codes == ours(shape, 2)()).mean() > 0.2


def test_it_says_how_far_from_the_floor(tmp_path):
    told = finish(start(
        "benchmark", "--shape", "tiny", "--batch", 1, "--turns", 1, "--peers", "eager", "--json",
        tmp_path / "found.json",
    ))  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text())
    said, machine = found["generation"]["1"], found["machine"]
    floor_s = 16 * max(said["step_bytes"] / machine["copy_bytes_per_s"],
                       said["step_flops"] / machine["matmul_flops_per_s"])  # fmt: skip
    assert said["floor_codes_per_s"] == pytest.approx(16 / floor_s)
    speed = said["codes_per_s"]
    assert said["share_of_floor"] == pytest.approx(speed["ours"] / said["floor_codes_per_s"])
    assert said["ratio_to_eager_peer"] == pytest.approx(speed["ours"] / speed["eager"])
    assert "times eager" in told
