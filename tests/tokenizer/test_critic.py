"""The critic: its network, its losses, and that neither player's loss reaches the other."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tokenizer.test_backbones import QUICK, TINY, agree, fresh, reach, task
from tests.train.toys import loop_config, pages
from tokenizer import critic as critics
from tokenizer.backbones import cut, make_decoder
from tokenizer.critic import Critic, CriticConfig, inject, last_layer_norms, lecam
from tokenizer.task import TokenizerTask, as_float
from train import mesh as meshes
from train.optimizer import OptimizerConfig
from train.plan import plan

SMALL = CriticConfig(
    weight=0.5, lecam=0.1, lecam_decay=0.9, width=8, num_layers=1, num_groups=4, adaptive=False
)


def first_batch():
    return {"pixels": jnp.asarray(pages()[0]["pixels"])}


def pair(**changes):
    """A task with a critic and its model."""
    played = task("patch", critic=dataclasses.replace(SMALL, **changes))
    return played, fresh(lambda: played.init(nnx.Rngs(0)))


def differentiate(played, model, *picks):
    """A program from the variables that are no parameters to what was picked of (loss, scalars),
    its gradient for each pick, the scalars and those variables after."""
    graphdef, params, extra = nnx.split(model, nnx.Param, ...)
    params, batch = nnx.to_pure_dict(params), first_batch()

    def objective(params, extra):
        model = nnx.merge(graphdef, params, extra)
        loss, scalars = played.loss(model, batch, jax.random.key(0))
        picked = jnp.stack([pick(loss, scalars) for pick in picks])
        after = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
        return picked, (picked, scalars, after)

    program = jax.jit(jax.jacrev(objective, has_aux=True), compiler_options=QUICK)
    return lambda extra: program(params, extra), nnx.to_pure_dict(extra)


def whole(loss, _):
    return loss


def sizes(tree):
    return [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree)]


def without(tree, name):
    return {key: value for key, value in tree.items() if key != name}


def test_the_network_is_a_patch_gan():
    kernels = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)
    for norm, vectors in (("group", 64 + 2 * (128 + 256 + 512) + 1), ("none", 64 + 896 + 1)):
        config = CriticConfig(1.0, norm=norm)
        critic = nnx.eval_shape(lambda c=config: Critic(c, 3, rngs=nnx.Rngs(0)))
        arrays = jax.tree.leaves(nnx.state(critic, nnx.Param))
        assert sum(math.prod(x.shape) for x in arrays) == kernels + vectors
        page = jax.ShapeDtypeStruct((2, 256, 192, 3), jnp.float32)
        graphdef, state = nnx.split(critic)
        logits = jax.eval_shape(lambda s, x, g=graphdef: nnx.merge(g, s)(x), state, page)
        assert logits.shape == (2, 30, 22)


def test_a_logit_sees_seventy_pixels():
    config = CriticConfig(1.0, width=4, norm="none")
    critic = fresh(lambda: Critic(config, 3, rngs=nnx.Rngs(0)))
    top, left, bottom, right = reach(lambda x: critic(x)[..., None], 7, 6, (128, 128))
    assert (bottom - top + 1, right - left + 1) == (70, 70)
    with pytest.raises(
        ValueError, match=r"16 x 40 px is too small for a critic of 3 layers; lower"
    ):
        critic(jnp.zeros((1, 40, 16, 3)))


def test_losses_are_their_formulas():
    real, fake = jnp.array([2.0, 0.5, -1.0]), jnp.array([-3.0, 0.0, 1.0])
    assert float(critics._hinge(real, fake)) == pytest.approx((0.5 + 2) / 6 + (1 + 2) / 6)
    p, q = jax.nn.sigmoid(real), jax.nn.sigmoid(fake)
    entropy = -(jnp.log(p).mean() + jnp.log(1 - q).mean()) / 2
    assert float(critics._nonsaturating(real, fake)) == pytest.approx(float(entropy), rel=1e-5)
    anchors = jnp.float32(1.0), jnp.float32(-0.5)
    wanted = (2.5**2 + 1.0**2 + 0) / 3 + (4.0**2 + 1.0**2 + 0) / 3
    assert float(lecam(real, fake, anchors)) == pytest.approx(wanted)


def test_bad_choices_are_named():
    with pytest.raises(ValueError, match=r"critic.loss 'wasserstein' .* hinge, nonsaturating"):
        CriticConfig(loss="wasserstein")
    with pytest.raises(ValueError, match=r"critic.norm 'batch' is not known; there are: group"):
        CriticConfig(norm="batch")
    with pytest.raises(ValueError, match=r"critic.weight -1.0 must be 0"):
        CriticConfig(weight=-1.0)


def test_an_injected_gradient_is_the_gradient():
    x, pull = jnp.ones((1, 2, 2, 3)), jnp.arange(12.0).reshape(1, 2, 2, 3)
    value, grad = jax.value_and_grad(lambda x: inject(jnp.float32(3.0), pull, 2 * x))(x)
    assert value == 3
    np.testing.assert_array_equal(grad, 2 * pull)


def test_off_it_is_not_there():
    off, on = task("patch"), task("patch", critic=SMALL)
    shapes = {t: nnx.eval_shape(lambda t=t: t.init(nnx.Rngs(0))) for t in (off, on)}
    params = {t: nnx.to_pure_dict(nnx.state(m, nnx.Param)) for t, m in shapes.items()}
    assert params[off].keys() == without(params[on], "critic").keys()
    assert not nnx.state(shapes[off], nnx.Not(nnx.Param))
    groups = {
        on.group(tuple(map(str, path))) for path, _ in nnx.to_flat_state(nnx.state(shapes[on]))
    }
    assert groups == {"hidden", "rest", "critic"}
    assert on.group(("critic", "stem", "kernel")) == "critic"


def test_neither_players_loss_reaches_the_other():
    judge, rest = lambda _, s: s["critic_loss"], lambda loss, s: loss - s["critic_loss"]
    program, extra = differentiate(*pair(loss="nonsaturating"), judge, rest)
    rows, _ = program(extra)
    judged, others = (jax.tree.map(lambda r, i=i: r[i], rows) for i in (0, 1))
    assert max(sizes(without(judged, "critic"))) == 0 and min(sizes(judged["critic"])) > 0
    assert max(sizes(others["critic"])) == 0 and min(sizes(without(others, "critic"))) > 0


def test_the_painters_gradient_and_its_adaptive_weight_are_their_definitions():
    played, model = pair(adaptive=True, weight=0.7)
    program, extra = differentiate(played, model, whole)
    found, (_, scalars, _) = program(extra)
    graphdef, params, _ = nnx.split(model, nnx.Param, ...)
    pixels = as_float(first_batch()["pixels"])

    def miss_and_flattery(params):
        out = nnx.merge(graphdef, params, extra)(pixels).pixels
        return jnp.stack([jnp.abs(out - pixels).mean(), -model.critic(out).mean()])

    jacobian = jax.jit(jax.jacrev(miss_and_flattery), compiler_options=QUICK)
    rows = jacobian(nnx.to_pure_dict(params))
    last = [rows["decoder"][layer]["kernel"] for layer in model.decoder.last]
    ours, theirs = (math.sqrt(sum(float((k[i] ** 2).sum()) for k in last)) for i in (0, 1))
    weight = 0.7 * ours / (theirs + 1e-4)
    assert float(scalars["painter_weight"]) == pytest.approx(weight, rel=1e-3)
    for half in ("encoder", "decoder"):
        wanted = jax.tree.map(lambda r: r[0] + weight * r[1], rows[half])
        for a, b in zip(jax.tree.leaves(found[half]), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a[0], b, atol=1e-5 + 1e-3 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("name", sorted(TINY))
def test_the_last_layer_is_where_the_gradient_is_measured(name):
    decoder = fresh(lambda: make_decoder(TINY[name], 6, rngs=nnx.Rngs(0)))
    normal = lambda seed, *shape: np.asarray(jax.random.normal(jax.random.key(seed), shape))  # noqa: E731
    pull, codes = normal(0, 1, 8, 12, 3), normal(1, 1, 2, 3, 6)
    if name == "conv":
        features = normal(2, 1, 8, 12, 8)
        seen = np.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [seen[:, i : i + 8, j : j + 12] for i in range(3) for j in range(3)]
        expected = [np.einsum("byxc,byxo->co", part, pull) for part in shifted]
    else:
        trunk, patches = normal(2, 1, 2, 3, 16), cut(jnp.asarray(pull), 4)
        features = (trunk, codes) if name == "patch" else trunk
        inputs = (trunk, codes) if name == "patch" else (trunk,)
        expected = [np.einsum("byxd,byxo->do", part, patches) for part in inputs]
    pulls = jnp.asarray(pull), jnp.asarray(2 * pull)
    found = last_layer_norms(decoder, jax.tree.map(jnp.asarray, features), pulls)
    norm = math.sqrt(sum(float((part**2).sum()) for part in expected))
    np.testing.assert_allclose(found, [norm, 2 * norm], rtol=1e-5)


def test_before_the_start_it_does_nothing_and_then_it_plays():
    played, model = pair(start_step=2, adaptive=True)
    alone, none = differentiate(TokenizerTask(played.model), model, whole)
    grads, (quiet, _, _) = alone(none)
    program, extra = differentiate(played, model, whole)
    for step in range(4):
        found, (loss, scalars, extra) = program(extra)
        assert extra["critic"]["steps"] == step + 1
        if step < 2:
            assert loss == quiet and scalars["painter_weight"] == scalars["critic_loss"] == 0
            assert extra["critic"]["real"] == extra["critic"]["fake"] == 0
            assert max(sizes(found["critic"])) == 0
            for half in ("encoder", "decoder"):
                jax.tree.map(np.testing.assert_array_equal, found[half], grads[half])
        else:
            assert loss != quiet and scalars["painter_weight"] > 0
            share = 1 - 0.9 ** (step - 1)  # the logits' means stay what they are
            for name in ("real", "fake"):
                wanted = share * float(scalars[f"critic_{name}"])
                assert float(extra["critic"][name]) == pytest.approx(wanted, rel=1e-4)


def test_asking_moves_no_anchor():
    played, model = pair()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    played.probes()["reconstruct"](model, first_batch()["pixels"])
    after = nnx.to_pure_dict(nnx.state(model))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_one_device_agrees_with_eight():
    assert agree(task("patch", critic=dataclasses.replace(SMALL, adaptive=True))) > 8


def test_the_loop_gives_the_critic_its_own_optimizer():
    config, mesh = loop_config(4), meshes.build({"data": 8})
    played = task("patch", critic=SMALL)
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="no optimizer for group critic"):
        plan(played, config, mesh)
    optimizers = {**config.optimizers, "critic": OptimizerConfig("adamw", 1e-4, b1=0.5)}
    with jax.set_mesh(mesh):
        planned = plan(played, dataclasses.replace(config, optimizers=optimizers), mesh)
    assert set(planned.abstract.extra["critic"]) == {"steps", "real", "fake"}
    assert set(planned.abstract.ema) == {"encoder", "decoder", "critic"}
