"""FLOPs counted by hand beside those counted from the program."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from decoder.conditioning import ConditioningConfig
from decoder.config import DecoderConfig
from decoder.task import DecoderTask
from layers.axes import use_rules
from layers.block import BlockConfig
from layers.visible import share_of, visible
from planner.model import PlannerConfig
from planner.task import PlannerTask
from tests.train.toys import NetTask
from tokenizer.backbones import BackboneConfig
from tokenizer.critic import CriticConfig
from tokenizer.model import QuantizerConfig, TokenizerConfig
from tokenizer.task import TokenizerTask
from train import accounting
from train import mesh as meshes
from train.accounting import Load, Loads, amounts, flops_of_gradient, mfu, model_flops
from train.feeding import place_batch

BLOCKS = BlockConfig(width=32, num_layers=3, num_heads=4, num_kv_heads=2, head_size=8, hidden=96)


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def test_a_product_counts_once_for_itself_and_once_for_each_gradient():
    x, w, v = shape(3, 4), shape(4, 5), shape(5, 6)
    deep = lambda p, x: jnp.sum((x @ p[0]) @ p[1])  # noqa: E731
    first, second = 2 * 3 * 4 * 5, 2 * 3 * 5 * 6
    assert flops_of_gradient(deep, [w, v], x) == 2 * first + 3 * second
    assert flops_of_gradient(deep, [w, v], x, trained=[True, False]) == 2 * first + 2 * second
    assert flops_of_gradient(deep, [w, v], x, trained=[False, True]) == first + 2 * second
    target = lambda p, x: jnp.sum(jax.lax.stop_gradient(x @ p[0]) @ p[1])  # noqa: E731
    assert flops_of_gradient(target, [w, v], x) == first + 2 * second
    adds = lambda p, x: jnp.sum(p[0]) + jnp.sum(jnp.tanh(x)) + jnp.sum(p[1])  # noqa: E731
    assert flops_of_gradient(adds, [w, v], x) == 0


@pytest.mark.parametrize("remat", [None, "nothing_saveable", "dots_with_no_batch_dims_saveable"])
def test_a_scan_counts_its_turns_and_a_checkpoint_nothing(remat):
    def loss(p, x):
        def layer(x, w):
            return jnp.tanh(jnp.tanh(x @ w) @ w.T), None

        policy = remat and getattr(jax.checkpoint_policies, remat)
        body = jax.checkpoint(layer, policy=policy, prevent_cse=False) if remat else layer
        return jnp.sum(jax.lax.scan(body, x @ p[1], p[0])[0])

    layer = 2 * 3 * 4 * 6
    counted = flops_of_gradient(loss, [shape(5, 4, 6), shape(4, 4)], shape(3, 4))
    assert counted == 5 * 2 * 3 * layer + 2 * (2 * 3 * 4 * 4)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_counts_its_windows(stride):
    def loss(p, x):
        for kernel in p:
            x = jax.lax.conv_general_dilated(
                x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return jnp.sum(x)

    first, second = (2 * 2 * (16 // s) ** 2 * 9 * i * 8 for s, i in ((stride, 3), (stride**2, 8)))
    counted = flops_of_gradient(loss, [shape(3, 3, 3, 8), shape(3, 3, 8, 8)], shape(2, 16, 16, 3))
    # the gradients' windows are the same pairs of input and output, but for those at the borders
    assert counted == pytest.approx(2 * first + 3 * second, rel=0.2)
    assert flops_of_gradient(loss, [shape(1, 1, 3, 8)], shape(2, 16, 16, 3)) == pytest.approx(
        2 * (2 * 2 * (16 // stride) ** 2 * 3 * 8), rel=1e-9
    )


def test_lookups_are_no_work_whatever_their_form():
    def looked_up(p, ids):
        return jnp.sum((jax.nn.one_hot(ids, 7).astype(jnp.bfloat16) @ p[0]) @ p[1])

    def gathered(p, ids):
        return jnp.sum(p[0][ids] @ p[1])

    weights, ids = [shape(7, 4), shape(4, 5)], shape(3, dtype=jnp.int32)
    assert flops_of_gradient(looked_up, weights, ids) == 3 * 2 * 3 * 4 * 5
    assert flops_of_gradient(gathered, weights, ids) == 3 * 2 * 3 * 4 * 5


def test_branches_count_by_the_largest_and_loops_without_end_are_refused():
    def branch(p, x):
        return jnp.sum(jax.lax.cond(x[0, 0] > 0, lambda: x @ p[0] @ p[0], lambda: x @ p[0]))

    def loop(p, x):
        step = lambda c: (c[0] + 1, c[1] @ jax.lax.stop_gradient(p[0]))  # noqa: E731
        turns = jax.lax.while_loop(lambda c: c[0] < 3, step, (0, jax.lax.stop_gradient(x)))
        return jnp.sum(turns[1]) + jnp.sum(p[0])

    one = 2 * 3 * 4 * 4
    assert flops_of_gradient(branch, [shape(4, 4)], shape(3, 4)) == 2 * one + 3 * one
    with pytest.raises(ValueError, match=r"unknown number of times.*use jax.lax.scan"):
        flops_of_gradient(loop, [shape(4, 4)], shape(3, 4))


def test_attention_counts_what_its_mask_lets_through():
    def attention(said):
        def loss(p, x):
            def layer(x, w):
                q = jnp.einsum("btd,dnh->btnh", x, w)
                with said():
                    return jax.nn.dot_product_attention(q, q, q).reshape(x.shape), None

            return jnp.sum(jax.lax.scan(jax.checkpoint(layer), x, p[0])[0])

        projections = 3 * 3 * 2 * (2 * 10) * 8 * 8
        counted = flops_of_gradient(loss, [shape(3, 8, 2, 4)], shape(2, 10, 8))
        # layers x (forward and two gradients) x (scores and values), each 2 B N T T H
        whole = 3 * 3 * 2 * (2 * 2 * 2 * 10 * 10 * 4)
        return (counted - projections) / whole

    assert attention(contextlib.nullcontext) == 1
    assert attention(lambda: visible(False, num_keys=10)) == 1
    assert attention(lambda: visible(True, num_keys=10)) == pytest.approx(0.5)
    some = attention(lambda: visible(True, num_keys=10, prefix=5))
    assert some == pytest.approx(0.5 + 0.25 / 2)


@pytest.mark.parametrize(("causal", "prefix"), [(False, 0), (True, 0), (True, 300), (True, 1000)])
def test_the_share_is_that_of_the_mask(causal, prefix):
    T = 1000
    i, j = np.mgrid[:T, :T]
    seen = (j <= i) | (j < prefix) | (not causal)

    def inside(x):
        with visible(causal, num_keys=T, prefix=prefix):
            return x @ x

    named = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(inside(x))))(np.ones((2, 2))).jaxpr
    shares = [share_of(str(e.source_info.name_stack)) for e in named.eqns]
    assert max(x for x in shares if x) == pytest.approx(seen.mean(), abs=1e-3)


def sizes(task):
    return {
        path: leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: task.init(nnx.Rngs(0))), nnx.Param))
        )
    }


@pytest.mark.parametrize("remat", ["none", "full", "dots"])
def test_a_decoder_of_classes_is_six_a_weight_and_token_without_its_lookups(remat):
    model = DecoderConfig(
        BLOCKS, 2, 512, ConditioningConfig(), objective="causal", num_classes=10, remat=remat
    )
    task, (B, y, x) = DecoderTask(model), (2, 4, 6)
    batch = {"codes": shape(B, y, x, 2, dtype=jnp.uint16), "classes": shape(B, dtype=jnp.int32)}
    inside = sum(np.prod(s) for p, s in sizes(task).items() if p[0].key in ("blocks", "head"))
    norms = sum(np.prod(s) for p, s in sizes(task).items() if p[0].key == "blocks" and len(s) == 2)
    T = y * x
    attention = 6 * BLOCKS.num_layers * BLOCKS.num_heads * BLOCKS.head_size * B * T * T
    assert model_flops(task, batch) == 6 * (inside - norms) * B * T + attention
    assert amounts(batch) == {"rows": 2.0, "tokens": 96.0}


@pytest.mark.parametrize("tied", [True, False])
def test_a_planner_is_six_a_weight_and_token_and_its_attention(tied):
    task = PlannerTask(PlannerConfig(BLOCKS, 512, 64, tie_embeddings=tied))
    B, T = 2, 64
    batch = {"ids": shape(B, T, dtype=jnp.int32), "planned": shape(B, T, dtype=bool)}
    weights = sum(np.prod(s) for s in sizes(task).values()) - (0 if tied else 512 * BLOCKS.width)
    attention = 6 * BLOCKS.num_layers * BLOCKS.num_heads * BLOCKS.head_size * B * T * T
    counted = model_flops(task, batch)
    assert counted == pytest.approx(6 * weights * B * T + attention, rel=0.01)  # norms' scales
    assert amounts(batch) == {"rows": 2.0, "tokens": 128.0}


def test_a_tokenizer_with_both_players_and_a_frozen_part_is_counted():
    backbone, page = BackboneConfig(width=32, hidden=64), shape(2, 16, 16, 3, dtype=jnp.uint8)
    model = TokenizerConfig(backbone, QuantizerConfig("product", (8,), 12))
    critic = CriticConfig(weight=0.5, width=8, num_layers=1, num_groups=4)
    alone, played = (
        model_flops(TokenizerTask(model, critic=c), {"pixels": page})
        for c in (CriticConfig(weight=0.0), critic)
    )
    assert played > 1.1 * alone > 0
    x = shape(8, 16)
    net = model_flops(NetTask(), {"x": x, "y": x, "step": shape(8, dtype=jnp.int32)})
    up_or_down = 2 * 8 * 16 * 32
    # three layers of two; the last product is frozen, and nobody asks for the gradient of x
    assert net == 3 * 6 * up_or_down + 2 * (2 * 8 * 16 * 16)


def test_the_count_is_of_the_global_batch_on_any_mesh_and_made_once_a_shape(monkeypatch):
    task, rules = NetTask(), {"B": ("data", "fsdp"), "D": "fsdp", "F": "tensor"}
    batch = {"x": np.ones((8, 16), np.float32), "y": np.ones((8, 16), np.float32)}
    batch["step"] = np.ones((8,), np.int32)
    wanted = model_flops(task, batch)
    mesh = meshes.build({"data": 2, "fsdp": 2, "tensor": 2})
    loads = Loads(task)
    with jax.set_mesh(mesh), use_rules(rules):
        placed = place_batch(batch, mesh, rules)
        assert loads.known(placed) is None
        assert loads(placed) == loads.known(placed) == Load({"rows": 8.0}, wanted)
        monkeypatch.setattr(accounting, "model_flops", None)
        assert loads(placed).flops == wanted
    few = {name: x[:4] for name, x in batch.items()}
    assert loads.known(few) is None
    with pytest.raises(TypeError):  # another shape would have been counted
        loads(few)


def test_work_in_pieces_is_counted_once_and_repeated_work_not_again():
    task = PlannerTask(PlannerConfig(BLOCKS, 512, 64))
    batch = {"ids": shape(8, 64, dtype=jnp.int32), "planned": shape(8, 64, dtype=bool)}
    wanted = model_flops(task, batch)
    mesh = meshes.build({"data": 2, "fsdp": 2, "tensor": 2})
    rules = {"B": ("data", "fsdp"), "D": "fsdp", "V": "tensor", "N": "tensor"}
    with jax.set_mesh(mesh), use_rules(rules):  # the table of ids lies in pieces
        assert model_flops(task, batch) == wanted

    def of_products(spec):
        product = jax.shard_map(
            lambda x, w: x @ w, in_specs=(spec, PartitionSpec()), out_specs=spec, check_vma=False
        )
        with jax.set_mesh(mesh):
            loss = lambda given, x: product(x, given[0]).sum()  # noqa: E731
            return flops_of_gradient(loss, [shape(4, 4)], shape(8, 4))

    assert of_products(PartitionSpec(("data", "tensor"))) == of_products(PartitionSpec())
    assert of_products(PartitionSpec("fsdp")) == 2 * (2 * 8 * 4 * 4)  # forward and for the matrix


def test_mfu_is_a_share_of_all_devices_and_nothing_without_a_peak():
    assert mfu(3e12, 2.0, num_devices=3, peak_flops_per_s=1e12) == 0.5
    assert mfu(3e12, 2.0, num_devices=3, peak_flops_per_s=None) is None
