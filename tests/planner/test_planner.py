"""The planner: its published shape, causality, memory, and that fast generation is the slow one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from blueprint import codec, vocab
from blueprint.check import copy_fidelity, demerits
from blueprint.copying import automaton, quoted
from blueprint.draft import classes, masks, outline
from blueprint.grammar import Limits
from layers.block import BlockConfig
from planner.examples import example
from planner.model import Planner, PlannerConfig
from planner.task import PlannerTask
from sampling.batch import Alphabet
from sampling.engine import Engine, generate_slowly
from sampling.planning import SPREAD, Plates, best_plans, plan_pages
from sampling.policy import Policy
from tests.bundles import RUN_OFTEN
from tests.probes import of_model
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import plan

BLOCKS = BlockConfig(
    width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_size=8, hidden=64, qk_norm=True
)
TINY = PlannerConfig(BLOCKS, vocab.SIZE, 192)
SHORT = (12, 15, 19, 26, 28, 40, 56, 58)  # seeds of pages of at most 148 ids


def test_a_published_shape_has_its_published_size():
    blocks = BlockConfig(
        width=1024, num_layers=28, num_heads=16, num_kv_heads=8, head_size=128, hidden=3072,
        qk_norm=True,
    )  # fmt: skip
    config = PlannerConfig(blocks, 151936, 4096, 1e6, tie_embeddings=True)
    module = nnx.eval_shape(lambda: Planner(config, rngs=nnx.Rngs(0)))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(module))))
    assert count == 596_049_920  # Qwen3-0.6B: .44 billion outside the embedding


def test_the_future_has_no_gradient():
    model = Planner(TINY, rngs=nnx.Rngs(0))
    ids = jnp.arange(6)[None] + 40

    graphdef, state = nnx.split(model)
    third = lambda params: nnx.merge(graphdef, params)(ids).logits[0, 2, 7]  # noqa: E731
    grads = jax.jit(jax.grad(third))(nnx.to_pure_dict(state))
    reach = jnp.abs(grads["embed"]["table"]).sum(-1)
    assert (reach[ids[0, :3]] > 0).all() and (reach[ids[0, 3:]] == 0).all()


def test_examples_mark_the_blueprint():
    prompt, page = plan(0, PageStyle())
    row = example({"prompt": prompt, "blueprint": page}, 512)
    assert codec.decode(row["ids"][row["planned"]].tolist()) == page
    with pytest.raises(ValueError, match="exceed 50"):
        example({"prompt": prompt, "blueprint": page}, 50)


@pytest.fixture(scope="module")
def probes():
    """Those of one tiny planner, each compiled once for all tests."""
    task = PlannerTask(TINY)
    graphdef, params = nnx.split(task.init(nnx.Rngs(1)))
    return of_model(task, graphdef, nnx.to_pure_dict(params), compiler_options=RUN_OFTEN)


@pytest.mark.parametrize("policy", [Policy(), Policy(1.0), Policy(0.8, 40, 0.9, 0.01)], ids=str)
def test_the_engine_is_the_slow_loop(policy, probes):
    prompts = ['a sign "Hi Bo"', 'a much longer request for a poster with "K9" and "Ö"']
    ids = [vocab.encode_prompt(p) for p in prompts]
    rules = [functools.partial(automaton, p, Limits((64, 64), 90)) for p in prompts]
    keys = jax.random.split(jax.random.key(3), 2)
    drafts = [outline(page_px=(64, 64), quotes=quoted(p)) for p in prompts]
    fast = Engine(probes, policy=policy, alphabet=Alphabet(masks(), classes()))
    made = fast.generate(ids, rules, keys, drafts)
    alone = fast.generate(ids[1:], rules[1:], keys[1:], drafts[1:])
    assert alone[0] == made[1]

    def padded(x):
        ids = np.zeros((1, TINY.max_length), np.int32)
        ids[:, : x.shape[1]] = x
        return np.asarray(probes["logits"](ids))[:, : x.shape[1]]

    for prompt, row, rule, key, page in zip(ids, made, rules, keys, prompts, strict=True):
        assert generate_slowly(padded, prompt, rule(), key, policy) == row
        assert copy_fidelity(page, codec.decode(row)) == 1.0


def test_the_best_of_several_plans_has_the_fewest_demerits(probes):
    prompts = ['a sign "Hi Bo" and "K9"', 'a poster with "Big Sale"']
    plates = Plates(
        Limits((64, 64), 150)
    )  # without the rules, so that there is much to choose from
    tries = [plan_pages(probes, prompts, plates, seed=5)]
    tries += [plan_pages(probes, prompts, plates, seed=5 + i, policy=SPREAD) for i in (1, 2)]
    best = best_plans(probes, prompts, plates, seed=5, num_tries=3)
    scores = [[demerits(p, plan) for p, plan in zip(prompts, row, strict=True)] for row in tries]
    assert [demerits(p, plan) for p, plan in zip(prompts, best, strict=True)] == [
        min(column) for column in zip(*scores, strict=True)
    ]
    assert max(map(max, scores)) > min(map(min, scores))


def test_overfits_eight_pages():
    task = PlannerTask(TINY)
    graphdef, params, _ = nnx.split(task.init(nnx.Rngs(0)), nnx.Param, ...)
    params = nnx.to_pure_dict(params)
    rows = [
        example(dict(zip(("prompt", "blueprint"), plan(s, PageStyle()), strict=True)), 148)
        for s in SHORT
    ]
    batch = {name: jnp.stack([row[name] for row in rows]) for name in rows[0]}
    optimizer = optax.adam(1e-2)
    opt = optimizer.init(params)

    @functools.partial(jax.jit, compiler_options=RUN_OFTEN)
    def step(params, opt):
        loss = lambda p: task.loss(nnx.merge(graphdef, p, {}), batch, jax.random.key(0))  # noqa: E731
        (value, scalars), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt = optimizer.update(grads, opt)
        return optax.apply_updates(params, updates), opt, value, scalars["accuracy"]

    for _ in range(100):
        params, opt, value, accuracy = step(params, opt)
    assert value < 1.5 and accuracy > 0.6


def test_remat_has_the_same_loss_and_gradients():
    ids = jnp.arange(24).reshape(2, 12) + 40

    def found(remat):
        task = PlannerTask(dataclasses.replace(TINY, remat=remat))
        graphdef, params = nnx.split(task.init(nnx.Rngs(0)))
        batch = {"ids": ids, "planned": jnp.ones(ids.shape, bool)}

        def loss(params):
            return task.loss(nnx.merge(graphdef, params), batch, jax.random.key(0))[0]

        value, gradients = jax.jit(jax.value_and_grad(loss))(params)
        return str(jax.make_jaxpr(jax.grad(loss))(params)), value, jax.tree.leaves(gradients)

    plain, value, gradients = found("none")
    again, value_again, gradients_again = found("full")
    assert "remat" not in plain and "remat" in again
    np.testing.assert_allclose(value_again, value, rtol=1e-6)
    for first, second in zip(gradients, gradients_again, strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-5, atol=1e-7)
