"""What attention kernels are told of a page's mask is what its table says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from decoder.model import Decoder
from decoder.task import DecoderTask
from layers import kernels, splash
from tests.decoder.pages import GRID, batch, config, given
from tests.tokenizer.menu import QUICK


def told(lock=False):
    """Three pages, the last without letters."""
    pages = given(batch(3, lock=lock))
    return {**pages, "letters": pages["letters"].at[2].set(0)}


@pytest.mark.parametrize("objective", ["masked", "causal", "random"])
@pytest.mark.parametrize("lock", [False, True], ids=["open", "locked"])
def test_the_mask_is_the_table(objective, lock):
    model = nnx.eval_shape(
        lambda: Decoder(config(objective=objective, lock=lock), rngs=nnx.Rngs(0))
    )
    pages = told(lock)
    mask, seen = model.mask(pages, GRID), model.sight(pages, GRID)
    assert (mask.pairs is None) == (objective != "random" and not lock)
    num = seen.shape[-1]
    np.testing.assert_array_equal(mask.dense(num, num), seen)


def test_a_class_decoders_mask_is_raster_order():
    model = nnx.eval_shape(lambda: Decoder(config(num_classes=5), rngs=nnx.Rngs(0)))
    mask = model.mask({"classes": jnp.zeros(2, int)}, GRID)
    assert mask.causal and mask.plain
    num = GRID[0] * GRID[1]
    np.testing.assert_array_equal(mask.dense(num, num), model.sight({}, GRID))


@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_a_decoder_by_splash_is_the_plain_one(objective, monkeypatch):
    """Letters that are not there look at what they like; nobody hears of it."""
    task = DecoderTask(config(objective=objective))
    data = {"codes": batch(3)["codes"], **told()}
    graphdef, state = nnx.split(task.init(nnx.Rngs(0)))

    def gradient():
        loss = lambda p: task.loss(nnx.merge(graphdef, p), data, jax.random.key(0))[0]  # noqa: E731
        found = jax.value_and_grad(loss)
        return jax.jit(found, compiler_options=QUICK)(nnx.to_pure_dict(state))

    wanted, by_hand = gradient()
    used = []
    slowly = functools.partial(splash.attend, interpret=True)
    monkeypatch.setattr(splash, "attend", lambda *xs: used.append(1) or slowly(*xs))
    monkeypatch.setattr(kernels, "choose", lambda *_: "splash")
    found, grads = gradient()
    assert used
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), grads, by_hand)
