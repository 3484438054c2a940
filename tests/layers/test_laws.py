"""Laws of the layers: causality, rotation, stacking, and letters that place arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from layers.axes import axes_tree, partition_spec
from layers.block import Block, BlockConfig, Stack, causal_mask
from layers.einsum import Einsum
from layers.rope import rotate, rotations

CONFIG = BlockConfig(
    width=32, num_layers=3, num_heads=4, num_kv_heads=2, head_size=8, hidden=48, qk_norm=True
)


@pytest.fixture(scope="module")
def stack():
    return Stack(lambda r: Block(CONFIG, rngs=r), CONFIG.num_layers, rngs=nnx.Rngs(0))


def run(stack, x):
    places = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
    turn, mask = (
        rotations(places[..., None].astype(jnp.float32), 8),
        causal_mask(places, x.shape[1]),
    )
    return stack.scan(lambda layer, x, _: (layer(x, turn, mask)[0], None), x)[0]


def test_causality_is_a_zero_gradient(stack):
    x = jax.random.normal(jax.random.key(1), (1, 6, 32))
    moved = jax.jacobian(lambda x: run(stack, x).sum(-1))(x)[0, :, 0]  # [query, key, D]
    reach = np.abs(np.asarray(moved)).sum(-1) > 0
    assert (reach == np.tril(np.ones((6, 6), bool))).all()


def test_scan_equals_unrolled(stack):
    x = jax.random.normal(jax.random.key(2), (2, 5, 32))
    graphdef, state = nnx.split(stack.layer)
    arrays, y = nnx.to_pure_dict(state), x
    places = jnp.broadcast_to(jnp.arange(5), (2, 5))
    turn, mask = rotations(places[..., None].astype(jnp.float32), 8), causal_mask(places, 5)
    for i in range(CONFIG.num_layers):
        layer = nnx.merge(graphdef, jax.tree.map(lambda a, i=i: a[i], arrays))
        y, _ = layer(y, turn, mask)
    np.testing.assert_allclose(run(stack, x), y, atol=1e-5)


def test_cache_equals_no_cache(stack):
    x = jax.random.normal(jax.random.key(3), (2, 5, 32))
    cache = CONFIG.empty_cache(2, 8)
    outs = []
    for t in range(5):
        at = jnp.full((2,), t)
        turn = rotations(at[:, None, None].astype(jnp.float32), 8)
        mask = causal_mask(at[:, None], 8)
        y, cache = stack.fold(
            lambda layer, y, c, turn=turn, mask=mask, at=at: layer(y, turn, mask, cache=c, at=at),
            x[:, t : t + 1],
            cache,
        )
        outs.append(y)
    np.testing.assert_allclose(jnp.concatenate(outs, 1), run(stack, x), atol=1e-5)


def test_rotation_keeps_length_and_sees_only_distance():
    q, k = jax.random.normal(jax.random.key(4), (2, 1, 1, 1, 16))

    def score(a, b):
        turn = lambda v, p: rotate(v, rotations(jnp.array(p, jnp.float32)[None, None], 16))  # noqa: E731
        return float((turn(q, a) * turn(k, b)).sum())

    assert score([3, 5], [1, 9]) == pytest.approx(score([13, 25], [11, 29]), abs=1e-4)
    assert score([3, 5], [1, 9]) != pytest.approx(score([3, 5], [2, 9]), abs=1e-3)
    still = rotate(q, rotations(jnp.zeros((1, 1, 2)), 16))
    np.testing.assert_array_equal(still, q)


def test_axes_follow_the_equation(stack):
    tree = axes_tree(stack)["layer"]
    assert tree["attention"]["query"]["kernel"] == "LDNH"
    assert tree["attention"]["out"]["kernel"] == "LNHD"
    assert tree["mlp_norm"]["scale"] == "LD"
    with pytest.raises(ValueError, match="no size for H"):
        Einsum("BTD,DNH->BTNH", {"D": 4, "N": 2}, rngs=nnx.Rngs(0))


def test_partition_spec_claims_each_mesh_axis_once():
    rules = {"B": ("data", "fsdp"), "D": "fsdp", "N": "tensor", "V": "tensor"}
    mesh = {"data": 2, "fsdp": 2, "tensor": 2}
    assert partition_spec("BTD", (8, 3, 4), rules, mesh) == PartitionSpec(
        ("data", "fsdp"), None, None
    )
    assert partition_spec("LDNH", (3, 4, 2, 8), rules, mesh) == PartitionSpec(
        None, ("fsdp",), ("tensor",), None
    )
    assert partition_spec("VD", (7, 4), rules, mesh) == PartitionSpec(None, ("fsdp",))
    with pytest.raises(ValueError, match="not in the alphabet"):
        partition_spec("E", (4,), rules, mesh)
