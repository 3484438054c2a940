"""The planner's one forward, trained and generating: padding, chunks, heads and groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from blueprint import vocab
from layers.block import BlockConfig
from planner.model import Planner, PlannerConfig
from planner.task import PlannerTask

BLOCKS = BlockConfig(16, 2, 4, 2, 4, 24, qk_norm=True)
TINY = PlannerConfig(BLOCKS, 40, 20)
IDS = jax.random.randint(jax.random.key(0), (3, 12), 1, 40)


@pytest.fixture(scope="module")
def model():
    return Planner(TINY, rngs=nnx.Rngs(0))


def test_padding_changes_nothing_before_it(model):
    padded = jnp.pad(IDS, ((0, 0), (0, 8)), constant_values=vocab.PAD)
    junk = jnp.pad(IDS, ((0, 0), (0, 8)), constant_values=7)
    before, same, other = (model(ids).logits[:, :12] for ids in (IDS, padded, junk))
    np.testing.assert_allclose(same, before, atol=1e-5)
    np.testing.assert_allclose(other, before, atol=1e-5)


def test_padding_does_not_enter_the_loss(model):
    task = PlannerTask(TINY)
    planned = jnp.broadcast_to(jnp.arange(20) % 12 > 4, (3, 20)) & (jnp.arange(20) < 12)
    rows = [jnp.pad(IDS, ((0, 0), (0, 8)), constant_values=fill) for fill in (0, 7)]
    losses = [
        task.loss(model, {"ids": ids, "planned": planned}, jax.random.key(0))[0] for ids in rows
    ]
    assert losses[0] == pytest.approx(float(losses[1]), abs=1e-5)


@pytest.mark.parametrize("chunks", [(12,), (5, 7), (1,) * 12], ids=str)
def test_chunks_through_the_cache_are_the_whole(model, chunks):
    cache, outs, at = model.empty_cache(3), [], 0
    for size in chunks:
        out = model(IDS[:, at : at + size], cache=cache, at=jnp.full((3,), at))
        cache, at = out.cache, at + size
        outs.append(out.logits)
    np.testing.assert_allclose(jnp.concatenate(outs, 1), model(IDS).logits, atol=1e-5)


def test_rows_of_the_cache_stand_where_they_say(model):
    lengths = jnp.array([3, 8, 11])
    out = model(IDS, cache=model.empty_cache(3), at=jnp.zeros(3, jnp.int32))
    following = jnp.take_along_axis(IDS, lengths[:, None], axis=1)
    step = model(following, cache=out.cache, at=lengths).logits[:, 0]
    whole = model(IDS).logits[jnp.arange(3), lengths]
    np.testing.assert_allclose(step, whole, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_has_a_formula_and_a_group(tied):
    task = PlannerTask(PlannerConfig(BLOCKS, 40, 20, tie_embeddings=tied))
    state = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: task.init(nnx.Rngs(0)))))
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    sizes = {"hidden": 0, "rest": 0}
    for path, leaf in leaves:
        sizes[task.group(tuple(str(k.key) for k in path))] += leaf.size
    D, L, N, K, H, F, V = 16, 2, 4, 2, 4, 24, 40
    assert sizes["hidden"] == L * (2 * D * N * H + 2 * D * K * H + 3 * D * F)
    assert sizes["rest"] == L * (2 * D + 2 * H) + D + V * D * (1 if tied else 2)
