"""Kernels in fewer bits: how much they lose, which ones, and that every reader understands them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from decoder.config import DecoderConfig
from decoder.model import Decoder
from layers.einsum import contract, product
from layers.quantized import WEIGHTS, Quantized, narrowed, quantized
from planner.model import Planner, PlannerConfig
from tests.decoder.pages import BLOCKS, DEPTH, GRID, batch, config, every_step, given
from tests.tokenizer.menu import QUICK


def test_every_number_is_within_half_a_level_of_its_column():
    kernel = jax.random.normal(jax.random.key(0), (2, 40, 3, 5)).at[0, :, 1, 2].set(0)
    made = quantized(kernel, (1,))
    assert made.values.dtype == jnp.int8 and made.scale.shape == (2, 1, 3, 5)
    most = jnp.abs(kernel).max(axis=1, keepdims=True)
    assert (jnp.abs(made.wide() - kernel) <= most / 254 * 1.001).all()
    assert (made.wide()[0, :, 1, 2] == 0).all() and jnp.abs(made.values).max() == 127


@pytest.mark.parametrize(
    "equation, sizes",
    [("BTD,DNH->BTNH", (6, 2, 5)), ("BTNH,NHD->BTD", (2, 3, 7)), ("BTQD,DQV->BTQV", (6, 4, 3))],
)
def test_a_product_is_that_of_the_rounded_kernel(equation, sizes):
    left, letters = equation.split("->")[0].split(",")
    output = equation.split("->")[1]
    of = dict(zip(letters, sizes, strict=True)) | {"B": 2, "T": 3}
    x = jax.random.normal(jax.random.key(1), tuple(of[letter] for letter in left))
    summed = tuple(i for i, letter in enumerate(letters) if letter not in output)
    kernel = quantized(jax.random.normal(jax.random.key(0), sizes), summed)
    wanted = jnp.einsum(equation, x, kernel.wide())
    np.testing.assert_allclose(contract(equation, x, kernel), wanted, atol=1e-5)
    narrow = product(equation, x.astype(jnp.bfloat16), kernel)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), wanted, atol=0.1)


@functools.cache
def models():
    """Modules without arrays, and weights of all their shapes."""
    made = (
        lambda: Decoder(config(head="depth", depth_blocks=DEPTH, ordered=True), rngs=nnx.Rngs(0)),
        lambda: Planner(PlannerConfig(BLOCKS, 30, 16, tie_embeddings=False), rngs=nnx.Rngs(0)),
    )
    modules, rng = [nnx.eval_shape(make) for make in made], np.random.default_rng(0)
    drawn = lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype)  # noqa: E731
    return [
        (module, jax.tree.map(drawn, nnx.to_pure_dict(nnx.state(module, nnx.Param))))
        for module in modules
    ]


@pytest.mark.parametrize("kind, room", [("int8", 0.01), ("bfloat16", 0.002)])
def test_what_is_narrowed_and_what_it_loses(kind, room):
    for module, weights in models():
        made, lost = narrowed(module, weights, kind)
        assert all(0 < error < room for error in lost.values())
        flat = jax.tree.leaves_with_path(made, is_leaf=lambda x: isinstance(x, Quantized))
        names = {"/".join(key.key for key in path): leaf for path, leaf in flat}
        assert {"head/kernel", "blocks/layer/mlp/up/kernel"} <= set(lost)
        for name in set(names) - set(lost):
            assert names[name].dtype == jnp.float32
            known = ("scale", "table", "codes_in", "copies_in", "bias", "vector", "sharpness")
            assert any(part in name for part in known), name
        assert ("codes_in/kernel" in names) == isinstance(module, Decoder)


def test_exact_is_the_default_and_others_are_refused():
    model, weights = models()[1]
    made, lost = narrowed(model, weights, WEIGHTS[0])
    assert made is weights and not lost
    with pytest.raises(ValueError, match="weights 'int4' are not known; there is: float32, bfl"):
        narrowed(model, weights, "int4")


@pytest.mark.parametrize("head, kind", [("factorised", "int8"), ("depth", "bfloat16")])
def test_a_decoder_says_nearly_the_same_by_its_forward_and_by_steps(head, kind):
    shape: DecoderConfig = config(head=head, depth_blocks=DEPTH)
    model, data = Decoder(shape, rngs=nnx.Rngs(0)), batch(2)
    codes, told = jnp.array(data["codes"], jnp.int32), given(data)
    graphdef, params = nnx.split(model)
    weights = nnx.to_pure_dict(params)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def both(weights):
        own = nnx.merge(graphdef, weights)
        whole = own(codes, jnp.ones((2, *GRID), bool), told)
        return whole.reshape(2, -1, 6, 4), every_step(own, codes, told)[0]

    exact, _ = both(weights)
    near, steps = both(narrowed(model, weights, kind)[0])
    room = 0.05 * float(jnp.abs(exact).max())
    assert 0 < float(jnp.abs(near - exact).max()) < room
    if head == "factorised":  # steps choose the codes that the depth head is told
        np.testing.assert_allclose(steps, near, atol=1e-4)
