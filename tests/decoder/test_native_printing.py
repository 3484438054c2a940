"""Printing with C++ steps is printing by whole forwards, whatever the batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from decoder import sheets
from decoder.model import Decoder
from decoder.task import DecoderTask
from layers.native import building
from layers.native.rows import use_native
from layers.quantized import narrowed
from sampling.picking import Pick
from sampling.policy import Policy
from sampling.printing import Press, print_codes
from sampling.raster import decode_raster_slowly
from tests.decoder.pages import GRID, batch, config, given
from tests.tokenizer.menu import QUICK

pytestmark = pytest.mark.skipif(not building.compiler(), reason="there is no C++ compiler here")


def printed(task, weights, told, keys, press):
    """Codes of pages with these keys by the probes, and the program's text."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: task.init(nnx.Rngs(0))))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(weights, told, keys):
        model = nnx.merge(graphdef, weights)
        probes = {name: functools.partial(f, model) for name, f in task.probes().items()}
        codes = jnp.zeros((len(keys), *GRID, 6), jnp.int32)
        masked = jnp.ones(codes.shape[:3], bool)
        return print_codes(probes, codes, masked, told, keys, press=press)

    return run(weights, told, keys), run.lower(weights, told, keys).as_text()


def loud(task):
    """Weights whose logits differ enough for draws to depend on them."""
    weights = nnx.to_pure_dict(nnx.state(task.init(nnx.Rngs(1))))
    weights["head"]["kernel"] = weights["head"]["kernel"] * 30
    return weights


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_raster_order(kind):
    """The slow loop is the specification, with int8 weights too."""
    task, told = DecoderTask(config()), given(batch(2))
    module = nnx.eval_shape(lambda: task.init(nnx.Rngs(0)))
    weights, _ = narrowed(module, loud(task), kind)
    keys, press = jax.random.split(jax.random.key(5), 2), Press(Policy(1.0))
    with use_native("always"):
        made, text = printed(task, weights, told, keys, press)
    assert "letterpress_products" in text and "letterpress_attend" in text
    write = jax.jit(
        lambda w, c, m, pick: nnx.merge(nnx.graphdef(module), w).write(c, m, told, pick),
        compiler_options=QUICK,
    )
    codes = jnp.zeros((2, *GRID, 6), jnp.int32)
    masked = jnp.ones(codes.shape[:3], bool)
    slow = decode_raster_slowly(
        functools.partial(write, weights), codes, masked, Pick(keys, Policy(1.0))
    )
    np.testing.assert_array_equal(made, slow)


@pytest.mark.parametrize("objective", ["causal", "random"])
def test_guided_codes_are_those_of_xla_and_of_a_page_alone(objective):
    changes = {"objective": objective} if objective == "random" else {"num_classes": 5}
    task = DecoderTask(config(**changes), drop_blueprint=0.1)
    told = given(batch(3)) if objective == "random" else {"classes": jnp.array([3, 0, 1])}
    weights, keys = loud(task), jax.random.split(jax.random.key(2), 3)
    press = Press(Policy(1.0, top_k=3), guidance=2.0, num_passes=30)
    with use_native("off"):
        wanted, text = printed(task, weights, told, keys, press)
    assert "letterpress" not in text
    with use_native("always"):
        found, text = printed(task, weights, told, keys, press)
        alone, _ = printed(task, weights, {n: a[1:2] for n, a in told.items()}, keys[1:2], press)
    assert "letterpress_products" in text
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(alone, found[1:2])


@pytest.mark.parametrize("changes", [{"window": 4}, {"cache": "int8"}], ids=str)
def test_windows_and_narrow_caches_print_the_same(changes):
    """Windows by the C++ steps; what these cannot read is left to XLA."""
    press = Press(Policy(1.0), **changes)
    task, told = DecoderTask(config()), given(batch(2))
    weights, keys = loud(task), jax.random.split(jax.random.key(7), 2)
    made = {}
    for choice in ("off", "always"):
        with use_native(choice):
            made[choice], text = printed(task, weights, told, keys, press)
    assert ("letterpress_attend" in text) == (not press.cache)
    np.testing.assert_array_equal(made["always"], made["off"])


def test_a_step_has_the_logits_of_xlas():
    model = Decoder(config(num_classes=5), rngs=nnx.Rngs(1))
    pick, told = Pick(jax.random.split(jax.random.key(0), 2)), {"classes": jnp.array([3, 0])}
    logits = {}
    for choice in ("off", "always"):
        with use_native(choice):
            sheet = sheets.prefill(model, jnp.zeros((2, *GRID, 6), jnp.int32), told)
        for t in range(3):
            before = jnp.full((2, 6), t)
            _, logits[choice], sheet = sheets.step(model, jnp.array(t), before, sheet, pick)
    np.testing.assert_allclose(logits["always"], logits["off"], atol=1e-5)
