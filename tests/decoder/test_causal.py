"""The causal decoder: nothing comes from later codes, its cache is its forward, and it learns pages
by heart."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from decoder import sheets
from decoder.model import Decoder
from decoder.task import DecoderTask
from layers.axes import axes_tree, partition_spec, use_rules
from sampling.picking import Pick
from sampling.policy import Policy
from sampling.printing import Press, print_counted
from sampling.raster import decode_raster, decode_raster_slowly
from tests.decoder.learning import bound, fitted, printer
from tests.decoder.pages import BLOCKS, DEPTH, GRID, batch, config, every_step, given
from tests.tokenizer.menu import QUICK
from train import mesh as meshes
from train.feeding import place_batch

T = GRID[0] * GRID[1]
CLASSES = config(num_classes=5, rope_theta=10000.0, ordered=True)


def loud(model):
    """The model with a head that makes much of small differences, so that draws depend on them."""
    model.head.kernel[...] = model.head.kernel[...] * 30
    return model


@pytest.mark.parametrize("lock", [False, True], ids=["open", "locked"])
def test_later_codes_have_no_gradient(lock):
    one = dataclasses.replace(config(lock=lock), num_codes=1, codebook_size=T)
    model, data = Decoder(one, rngs=nnx.Rngs(0)), batch(1, lock=lock)
    codes = jnp.arange(T).reshape(1, *GRID, 1)  # each its own row of the table
    told = {**given(data), "glyph_codes": codes[:, ::-1]}
    graphdef, state = nnx.split(model)

    def logits(params, regions):
        model = nnx.merge(graphdef, params)
        out = model(codes, jnp.ones((1, *GRID), bool), {**told, "regions": regions})
        return out.reshape(T, -1)[:, 3]

    by_both = jax.jit(jax.jacrev(logits, argnums=(0, 1)), compiler_options=QUICK)
    by_params, by_regions = by_both(nnx.to_pure_dict(state), told["regions"])
    of_codes = jnp.abs(by_params["codes_in"]["kernel"]).sum(-1)[:, 0] > 0
    np.testing.assert_array_equal(of_codes, np.tril(np.ones((T, T), bool), -1))
    of_regions = jnp.abs(by_regions).sum(-1).reshape(T, T) > 0
    np.testing.assert_array_equal(of_regions, np.tril(np.ones((T, T), bool)))


def in_windows(model, press):
    """A compiled print with the number of passes."""
    probes = bound(DecoderTask(model.config), model)
    make = lambda *arrays: print_counted(probes, *arrays, press=press)  # noqa: E731
    return jax.jit(make, compiler_options=QUICK)


def case(name):
    """A decoder and what two pages tell it."""
    if name == "classes":
        return loud(Decoder(CLASSES, rngs=nnx.Rngs(1))), {"classes": jnp.array([3, 0])}
    lock, head = name == "locked", "depth" if name == "depth" else "factorised"
    model = loud(Decoder(config(lock=lock, head=head, depth_blocks=DEPTH), rngs=nnx.Rngs(1)))
    return model, given(batch(2, lock=lock))


@pytest.mark.parametrize("name", ["open", "locked", "classes", "depth"])
def test_printing_with_a_cache_is_printing_by_whole_forwards(name):
    model, told = case(name)
    codes = jnp.array(batch(2)["codes"], jnp.int32)
    masked = jax.random.bernoulli(jax.random.key(0), 0.7, (2, *GRID)).at[:, -1, -3:].set(False)
    keys = jax.random.split(jax.random.key(5), 2)
    graphdef, state = nnx.split(model)
    write = jax.jit(
        lambda s, c, m, pick: nnx.merge(graphdef, s).write(c, m, told, pick),
        compiler_options=QUICK,
    )

    def decode(codes, masked, keys, policy, first=0):
        there = {name: array[first:] for name, array in told.items()}
        sheet = sheets.prefill(model, codes[first:], there)
        return decode_raster(step, sheet, codes[first:], masked[first:], Pick(keys[first:], policy))

    def step(*arrays):
        codes, _, sheet = sheets.step(model, *arrays)
        return codes, sheet

    fast = jax.jit(decode, static_argnums=(3, 4), compiler_options=QUICK)
    for policy in (Policy(), Policy(1.0)) if name == "open" else (Policy(1.0),):
        slow = decode_raster_slowly(
            functools.partial(write, state), codes, masked, Pick(keys, policy)
        )
        made = fast(codes, masked, keys, policy)
        np.testing.assert_array_equal(made, slow)
        ahead, passes = in_windows(model, Press(policy, window=9))(codes, masked, told, keys)
        np.testing.assert_array_equal(ahead, slow)
        assert (passes >= 5).all() and (passes < T).all()
        np.testing.assert_array_equal(made[~masked], codes[~masked])
    np.testing.assert_array_equal(fast(codes, masked, keys, policy, 1), made[1:])
    other = codes.at[:, 0, 0].set(3 - codes[:, 0, 0])
    known = masked.at[:, 0, 0].set(False)
    first, second = (fast(c, known, keys, policy) for c in (codes, other))
    assert (first != second)[:, 1:].any()  # what is known is fed


def test_guidance_is_the_same_in_windows():
    model, told = case("open")
    probes = bound(DecoderTask(model.config, drop_blueprint=0.1, drop_glyphs=0.1), model)
    codes, keys = jnp.array(batch(2)["codes"], jnp.int32), jax.random.split(jax.random.key(5), 2)
    masked = jnp.ones((2, *GRID), bool).at[1, 2:].set(False)
    made, passes = [], []
    for window in (1, 9):
        press = Press(Policy(1.0), guidance=1.5, window=window)
        show = functools.partial(print_counted, probes, press=press)
        found = jax.jit(show, compiler_options=QUICK)(codes, masked, told, keys)
        made.append(found[0])
        passes.append(found[1])
    np.testing.assert_array_equal(*made)
    np.testing.assert_array_equal(passes[0], [2 * T, 2 * 14])
    assert (passes[1] < passes[0]).all()


def test_every_step_has_the_logits_of_the_forward():
    model, told = case("open")
    codes = jnp.array(batch(2)["codes"], jnp.int32)
    forward = jax.jit(lambda codes: model(codes, jnp.ones((2, *GRID), bool), told))
    whole = forward(codes).reshape(2, T, 6, 4)
    steps, _ = jax.jit(lambda codes: every_step(model, codes, told))(codes)
    np.testing.assert_allclose(steps, whole, atol=1e-4)


def gradient(task, mesh, rules, data):
    with jax.set_mesh(mesh), use_rules(rules):
        model = task.init(nnx.Rngs(0))
        graphdef, params, _ = nnx.split(model, nnx.Param, ...)
        place = lambda x, axes: jax.device_put(  # noqa: E731
            x, NamedSharding(mesh, partition_spec(axes, x.shape, rules, dict(mesh.shape)))
        )
        params = jax.tree.map(place, nnx.to_pure_dict(params), axes_tree(model))
        loss = lambda p, d: task.loss(nnx.merge(graphdef, p, {}), d, jax.random.key(0))[0]  # noqa: E731
        placed = place_batch({n: np.asarray(a) for n, a in data.items()}, mesh, rules)
        return jax.device_get(
            jax.jit(jax.value_and_grad(loss), compiler_options=QUICK)(params, placed)
        )


@pytest.mark.parametrize("changes", [{}, {"objective": "random", "head": "depth"}], ids=str)
def test_eight_devices_are_one_with_remat_too(changes):
    shape = config(lock=True, dropout=0.2, depth_blocks=DEPTH, **changes)
    task = DecoderTask(shape, drop_blueprint=0.3, drop_glyphs=0.3)
    spare = dataclasses.replace(task, model=dataclasses.replace(shape, remat="dots"))
    data, rules = batch(8, lock=True), {"B": ("data", "fsdp"), "D": "fsdp", "N": "tensor"}
    one = meshes.build({"data": 1}, jax.devices()[:1])
    cube = meshes.build({"data": 2, "fsdp": 2, "tensor": 2})
    wanted = gradient(task, one, {"B": "data"}, data)
    found = gradient(spare, cube, {**rules, "F": "tensor"}, data)
    assert optax.tree.norm(wanted[1]) < 100  # rows told nothing at all have no token of zeros
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, wanted)


def test_overfits_eight_pages_and_prints_them():
    task, data = DecoderTask(config()), batch(8)
    model, losses = fitted(task, lambda _: data, 120)
    assert losses[0] > 1.2 and losses[-1] < 0.3 * losses[0]
    codes, keys = jnp.zeros(data["codes"].shape, jnp.int32), jax.random.split(jax.random.key(0), 8)
    printed = printer(task, model, Press())(codes, jnp.ones((8, *GRID), bool), given(data), keys)
    assert (printed == data["codes"]).mean() > 0.7


def test_the_shapes_of_llamagen_b():
    """111 million parameters (Sun et al. 2024, table 1), by hand from the names of its GPT-B: none
    of the blueprint's inputs, of the canonical copies or of the mixing layer before the blocks."""
    width, hidden, depth, codes, classes = 768, 2048, 12, 16384, 1000
    blocks = dataclasses.replace(
        BLOCKS, width=width, num_layers=depth, num_heads=12, num_kv_heads=12, head_size=64,
        hidden=hidden,
    )  # fmt: skip
    shape = dataclasses.replace(
        config(blocks=blocks, num_classes=classes, rope_theta=10000.0, zero_prefix_rotation=True),
        num_codes=1, codebook_size=codes,
    )  # fmt: skip
    module = nnx.eval_shape(lambda: Decoder(shape, rngs=nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(module))
    layer = 4 * width * width + 3 * width * hidden + 2 * width
    tables = (classes + 1) * width + 2 * codes * width  # classes with none, codes in, codes out
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == depth * layer + tables + width == 110_888_448
    assert set(params) == {"blocks", "classes_in", "codes_in", "head", "norm"}


@pytest.mark.parametrize("zero", [False, True], ids=["identity", "llamagen"])
def test_the_class_is_not_rotated(zero):
    model = Decoder(dataclasses.replace(CLASSES, zero_prefix_rotation=zero), rngs=nnx.Rngs(0))
    codes = jnp.zeros((1, *GRID, 6), jnp.int32)
    cos, sin = sheets.prefill(model, codes, {"classes": jnp.array([1])}).turn
    assert (cos[:, 0] == (0 if zero else 1)).all() and (sin[:, 0] == 0).all()
    np.testing.assert_allclose(cos[:, 1:] ** 2 + sin[:, 1:] ** 2, 1, atol=1e-5)
    np.testing.assert_allclose(
        cos[0, 2, 0, 0], np.cos(1.5)
    )  # the first code's row, then its column
    np.testing.assert_allclose(cos[0, 2, 0, 4], np.cos(2.5))


def test_a_class_left_out_is_the_last_row():
    task = DecoderTask(CLASSES, drop_blueprint=0.1)
    model, codes = task.init(nnx.Rngs(0)), jnp.zeros((2, *GRID, 6), jnp.int32)
    masked = jnp.ones((2, *GRID), bool)
    nothing = task.probes()["unconditional"](model, {"classes": jnp.array([1, 4])})
    last = model(codes, masked, {"classes": jnp.array([5, 5])})
    np.testing.assert_array_equal(model(codes, masked, nothing), last)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="objective 'casual' is not known; there is: masked, cau"):
        config(objective="casual")
    with pytest.raises(ValueError, match="head 'deep' is not known; there is: factorised, depth"):
        config(head="deep")
    with pytest.raises(ValueError, match="num_classes 3 needs objective 'causal'"):
        config(objective="masked", num_classes=3)
    with pytest.raises(ValueError, match=r"dropout 1\.0"):
        config(dropout=1.0)
    with pytest.raises(ValueError, match="remat 'all' is not known; there is: none, full, dots"):
        config(remat="all")
