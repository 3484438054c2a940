"""Convolution, group normalisation and resampling against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding

from layers.axes import axes_tree, partition_spec, use_rules
from layers.conv import HALVING, Conv, GroupNorm, Window, enlarge, shrink


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def by_loops(x, kernel, bias, stride, pads):
    """The definition, one output position at a time."""
    side = kernel.shape[0]
    x = np.pad(x, ((0, 0), pads, pads, (0, 0)))
    rows, columns = ((n - side) // stride + 1 for n in x.shape[1:3])
    out = np.zeros((len(x), rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            seen = x[:, stride * i : stride * i + side, stride * j : stride * j + side]
            out[:, i, j] = np.einsum("bijc,ijco->bo", seen, kernel) + bias
    return out


@pytest.mark.parametrize(
    ("window", "pads", "shape"),
    [
        (Window(), (1, 1), (6, 8)),
        (Window(1), (0, 0), (6, 8)),
        (HALVING, (0, 1), (3, 4)),
        (Window(4, stride=2, padding=(1, 1)), (1, 1), (3, 4)),
        (Window(4, padding=(1, 1)), (1, 1), (5, 7)),
    ],
)
def test_convolution_is_its_definition(window, pads, shape):
    conv = Conv(3, 5, window, rngs=nnx.Rngs(0))
    conv.bias[...] = normal(1, 5)
    x = normal(2, 2, 6, 8, 3)
    out = conv(x)
    assert out.shape == (2, *shape, 5)
    expected = by_loops(np.asarray(x), conv.kernel[...], conv.bias[...], window.stride, pads)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_halving_looks_right_and_down_only():
    conv = Conv(1, 1, HALVING, rngs=nnx.Rngs(0))
    seen = jax.grad(lambda x: conv(x)[0, 1, 2, 0])(jnp.ones((1, 8, 8, 1)))[0, :, :, 0] != 0
    assert (np.argwhere(seen).min(0) == (2, 4)).all() and (np.argwhere(seen).max(0) == (4, 6)).all()
    assert seen.sum() == 9
    corner = jax.grad(lambda x: conv(x)[0, 3, 3, 0])(jnp.ones((1, 8, 8, 1))) != 0
    assert corner.sum() == 4


def test_kernels_say_their_axes_and_start_at_the_scale_of_their_fan_in():
    conv = Conv(64, 128, rngs=nnx.Rngs(0), scale=0.5)
    assert axes_tree(conv) == {"kernel": "__IO", "bias": "O"}
    assert axes_tree(conv, field="summed") == {"kernel": "_I", "bias": ""}
    assert float(conv.kernel[...].std()) == pytest.approx(0.5 / np.sqrt(9 * 64), rel=0.02)
    assert set(axes_tree(Conv(2, 2, rngs=nnx.Rngs(0), bias=False))) == {"kernel"}
    assert conv(jnp.ones((1, 4, 4, 64), jnp.bfloat16)).dtype == jnp.bfloat16


def test_group_norm_is_its_formula():
    norm = GroupNorm(12, 3, eps=1e-6)
    norm.scale[...], norm.bias[...] = normal(0, 12), normal(1, 12)
    x = 3 + 2 * normal(2, 2, 4, 5, 12)
    groups = np.asarray(x).reshape(2, 20, 3, 4)
    mean, variance = (f(groups, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    plain = ((groups - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)
    np.testing.assert_allclose(norm(x), plain * norm.scale[...] + norm.bias[...], atol=1e-4)
    np.testing.assert_allclose(norm(1e3 + x), norm(x), atol=2e-3)
    assert norm(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="12 channels are not a multiple of 5 groups"):
        GroupNorm(12, 5)


def test_shrinking_inverts_enlarging():
    x = normal(0, 2, 3, 4, 5)
    big = enlarge(x, 3)
    assert big.shape == (2, 9, 12, 5)
    np.testing.assert_array_equal(big[:, 4, 7], x[:, 1, 2])
    np.testing.assert_allclose(shrink(big, 3), x, atol=1e-6)
    np.testing.assert_allclose(shrink(x[:, :2], 2)[:, 0, 0], x[:, :2, :2].mean((1, 2)), atol=1e-6)
    with pytest.raises(ValueError, match="4 x 3 cannot be averaged in squares of 2"):
        shrink(x, 2)


def test_a_kernel_in_pieces_has_the_gradient_of_a_whole_one():
    """XLA gets this wrong by more than its size if the kernel is not gathered first."""
    kinds = (AxisType.Auto,) * 3
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=kinds)
    rules = {"B": ("data", "fsdp"), "I": "fsdp", "O": "tensor"}
    first, second = (nnx.split(Conv(16, 16, rngs=nnx.Rngs(seed))) for seed in (0, 1))

    def loss(states, x):
        for (graphdef, _), state in zip((first, second), states, strict=True):
            x = jnp.sin(nnx.merge(graphdef, state)(x))
        return x.mean()

    states = [nnx.to_pure_dict(state) for _, state in (first, second)]
    x = normal(2, 8, 4, 4, 16)
    whole = jax.jit(jax.grad(loss))(states, x)
    with jax.set_mesh(mesh), use_rules(rules):

        def place(array, axes):
            spec = partition_spec(axes, array.shape, rules, dict(mesh.shape))
            return NamedSharding(mesh, spec)

        letters = {"kernel": "__IO", "bias": "O"}
        places = [jax.tree.map(place, state, letters) for state in states]
        cut = jax.device_put(states, places), jax.device_put(x, place(x, "BYXC"))
        pieces = jax.jit(jax.grad(loss), out_shardings=places)(*cut)
    for wanted, found in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4 * float(jnp.abs(wanted).max()))
