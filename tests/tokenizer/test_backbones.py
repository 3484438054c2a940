"""Backbones: real sizes, published sizes, what each position may see, one device = eight."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from layers.axes import axes_tree, partition_spec, use_rules
from tests.train.toys import pages
from tokenizer.backbones import BackboneConfig, ConvConfig, ViTConfig, make_decoder, make_encoder
from tokenizer.model import QuantizerConfig, Tokenizer, TokenizerConfig
from tokenizer.task import TokenizerTask
from train import mesh as meshes
from train.config import build
from train.feeding import place_batch

TINY = {
    "patch": BackboneConfig("patch", 4, width=16, hidden=32),
    "conv": BackboneConfig(
        "conv", 4, width=8, num_blocks=1, conv=ConvConfig((1, 2, 2), (), latent=16, num_groups=4)
    ),
    "vit": BackboneConfig("vit", 4, width=16, hidden=32, vit=ViTConfig(num_heads=2)),
}
# For programs that run once or thirty times.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
LEVELS = {4: (1, 2, 4), 8: (1, 2, 2, 4), 16: (1, 1, 2, 2, 4)}


def task(name, **changes):
    model = TokenizerConfig(TINY[name], QuantizerConfig("product", (8,), 12))
    return TokenizerTask(model, **changes)


def fresh(make, seed=0):
    """A module as it starts, its kernels and tables drawn by numpy: one program a shape costs
    seconds here."""
    rng = np.random.default_rng(seed)
    module = nnx.eval_shape(make)
    graphdef, state = nnx.split(module)
    for path, variable in nnx.to_flat_state(state):
        letters, value = variable.get_metadata(), np.zeros(variable.shape, variable.dtype)
        if letters.get("summed"):
            sizes = zip(letters["axes"], variable.shape, strict=True)
            fan_in = math.prod(size for letter, size in sizes if letter in letters["summed"])
            value = rng.normal(0, fan_in**-0.5, variable.shape).astype(np.float32)
        variable.set_value(jnp.asarray(value + (path[-1] == "scale")))
    return nnx.merge(graphdef, state)


def encoder_of(config, code_width=6):
    return fresh(lambda: make_encoder(config, code_width, rngs=nnx.Rngs(0)))


def real_size(name, f):
    own = {"conv": ConvConfig(LEVELS[f]), "vit": ViTConfig(num_heads=8)}
    width = 128 if name == "conv" else 512
    return BackboneConfig(name, f, width, 4 * width, num_blocks=2, **own)


@pytest.mark.parametrize("f", [4, 8, 16])
@pytest.mark.parametrize("name", sorted(TINY))
def test_real_sizes_have_the_shapes_they_should(name, f):
    config = TokenizerConfig(real_size(name, f))
    model = nnx.eval_shape(lambda: Tokenizer(config, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)

    def shapes(state, pixels):
        out = nnx.merge(graphdef, state)(pixels)
        return out.pixels, out.quantized.codes

    for height, width in ((256, 256), (1024, 512), (1024, 1024)):
        page = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
        pixels, codes = jax.eval_shape(shapes, state, page)
        assert pixels.shape == page.shape and codes.shape == (1, height // f, width // f, 48)


def conv(side, num_in, num_out):
    return side * side * num_in * num_out + num_out


def block(num_in, num_out):
    shortcut = conv(1, num_in, num_out) if num_in != num_out else 0
    return (
        2 * num_in + conv(3, num_in, num_out) + 2 * num_out + conv(3, num_out, num_out) + shortcut
    )


def attention(width):
    return 2 * width + 4 * conv(1, width, width)


def vqgan(widths, num_blocks, latent, code):
    """Parameters of the two halves of a VQGAN with attention at its lowest level."""
    low, num_levels = widths[-1], len(widths)
    middle = 2 * block(low, low) + attention(low)
    encoder = (
        conv(3, 3, widths[0]) + middle + 2 * low + conv(3, low, latent) + conv(1, latent, code)
    )
    decoder = conv(1, code, latent) + conv(3, latent, low) + middle
    decoder += 2 * widths[0] + conv(3, widths[0], 3)
    for i, width in enumerate(widths):
        encoder += block(widths[max(i - 1, 0)], width) + (num_blocks - 1) * block(width, width)
        deeper = widths[min(i + 1, num_levels - 1)]
        decoder += block(deeper, width) + num_blocks * block(width, width)
        encoder += conv(3, width, width) * (i < num_levels - 1)  # down
        decoder += conv(3, width, width) * (i > 0)  # up
    encoder += num_blocks * attention(low)
    decoder += (num_blocks + 1) * attention(low)
    return encoder, decoder


def count(config, code):
    halves = (
        nnx.eval_shape(lambda make=make: make(config, code, rngs=nnx.Rngs(0)))
        for make in (make_encoder, make_decoder)
    )
    return tuple(sum(math.prod(x.shape) for x in jax.tree.leaves(nnx.state(h))) for h in halves)


@pytest.mark.parametrize(
    ("f", "published"), [(16, 71_883_403), (8, 70_109_835)], ids=["VQ-16", "VQ-8"]
)
def test_llamagens_tokenizers_have_their_parameters(f, published):
    widths = tuple(128 * times for times in LEVELS[f])
    counted = count(BackboneConfig("conv", f, 128, conv=ConvConfig(LEVELS[f])), 8)
    assert counted == vqgan(widths, 2, 256, 8)
    assert sum(counted) + 16384 * 8 == published  # with the codebook


def test_patch_and_vit_have_the_parameters_of_their_formulas():
    D, F, Z, patch = 512, 2048, 48, 8 * 8 * 3
    mlp, ends = D + 2 * D * F, patch * D + D * Z
    trunk = 2 * mlp + D + 9 * D * D + D
    assert count(real_size("patch", 8), Z) == (trunk + ends + patch * Z,) * 2
    layer = 2 * D + 4 * D * D + 2 * (D // 8) + 3 * D * F
    assert count(real_size("vit", 8), Z) == (2 * layer + D + ends,) * 2


def test_diffusers_vq_models_can_be_had_by_config():
    own = ConvConfig((1, 2, 2, 4, 6), (), middle_attention=False, latent=64)
    encoder, decoder = count(BackboneConfig("conv", 16, 128, conv=own), 64)
    widths = (128, 256, 256, 512, 768)
    expected = vqgan(widths, 2, 64, 64)
    assert encoder == expected[0] - 3 * attention(768)
    assert decoder == expected[1] - 4 * attention(768)


def reach(function, y, x, shape=(32, 32)):
    """Which pixels move the code position (y, x): their rows and columns, first to last."""
    picture = jax.random.normal(jax.random.key(0), (1, *shape, 3))
    grad = jax.jit(jax.grad(lambda p: function(p)[0, y, x].sum()), compiler_options=QUICK)(picture)
    seen = np.argwhere(np.abs(np.asarray(grad)).sum((0, 3)) > 0)
    return (*seen.min(0).tolist(), *seen.max(0).tolist())


def test_a_patch_sees_itself_and_its_eight_neighbours():
    encoder = encoder_of(TINY["patch"])
    assert reach(encoder, 3, 4) == (8, 12, 19, 23)
    assert reach(encoder, 0, 7) == (0, 24, 7, 31)


@pytest.mark.parametrize("name", ["conv", "vit"])
def test_attention_sees_the_whole_page(name):
    assert reach(encoder_of(TINY[name]), 0, 7) == (0, 0, 31, 31)


def test_one_block_a_half_has_no_empty_arrays():
    """They could not be saved."""
    config = dataclasses.replace(TINY["patch"], num_blocks=1)
    encoder = make_encoder(config, 6, rngs=nnx.Rngs(0))
    sizes = {x.size for x in jax.tree.leaves(nnx.state(encoder))}
    assert 0 not in sizes
    assert encoder(jnp.zeros((1, 32, 48, 3))).shape[-1] == 6


def test_a_convolution_of_a_page_is_local_without_attention_and_norms(monkeypatch):
    own = ConvConfig((1, 2, 2), (), middle_attention=False, latent=16, num_groups=4)
    encoder = encoder_of(dataclasses.replace(TINY["conv"], conv=own))
    monkeypatch.setattr("layers.conv.GroupNorm.__call__", lambda norm, x: x)
    # At f4 the position (8, 8) starts at pixel 32. Before it: seven 3 x 3 convolutions at 4 px (the
    # level's block, two in the middle, the head), two at 2 px, and three at 1 px; the two strided
    # ones look right and down only. Behind it: the same, and 2 px and 4 px more for the strides.
    before, behind = 7 * 4 + 2 * 2 + 3, 7 * 4 + 2 * 2 + 3 + 2 * 2 + 1 * 2
    assert reach(encoder, 16, 16, (128, 128)) == (64 - before,) * 2 + (64 + behind,) * 2


def test_a_shift_by_whole_codes_shifts_the_codes():
    for name in ("patch", "conv"):
        own = ConvConfig((1, 2, 2), (), middle_attention=False, latent=16, num_groups=4)
        config = dataclasses.replace(TINY[name], conv=own)
        encoder = encoder_of(config)
        blot = jax.random.normal(jax.random.key(1), (1, 8, 8, 3))
        page = jnp.zeros((1, 160, 160, 3))
        encoder = jax.jit(encoder, compiler_options=QUICK)
        one = encoder(page.at[:, 72:80, 72:80].set(blot))
        other = encoder(page.at[:, 76:84, 80:88].set(blot))
        near = slice(10, 28)
        moved = jnp.roll(one, (1, 2), axis=(1, 2))
        np.testing.assert_allclose(moved[:, near, near], other[:, near, near], atol=2e-3)


@pytest.mark.parametrize("name", sorted(TINY))
def test_pages_that_do_not_divide_are_refused(name):
    encoder = encoder_of(TINY[name])
    with pytest.raises(ValueError, match="18 x 16 px cannot be cut into patches of 4 px; crop or"):
        encoder(jnp.zeros((1, 16, 18, 3)))


def test_sizes_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="'mlp' is not known; there are: conv, patch, vit"):
        BackboneConfig("mlp")
    with pytest.raises(ValueError, match=r"halve the page 3 times.*give 5 multipliers"):
        BackboneConfig("conv", 16)
    with pytest.raises(ValueError, match=r"48 channels are not a multiple of conv\.num_groups 32"):
        BackboneConfig("conv", 8, width=48)
    with pytest.raises(ValueError, match="attention_levels has 4; the levels are 0 to 3"):
        BackboneConfig("conv", 8, 64, conv=ConvConfig(attention_levels=(4,)))
    with pytest.raises(ValueError, match="width 40 is not a multiple of 16"):
        BackboneConfig("vit", 8, width=40)


def test_a_config_chooses_by_name():
    given = {"name": "conv", "downsampling": 4, "width": 32, "conv": {"multipliers": [1, 2, 2]}}
    config = build(BackboneConfig, given)
    assert config.conv == ConvConfig((1, 2, 2)) and config.level_widths == (32, 64, 64)
    for name in TINY:
        graph = nnx.eval_shape(lambda n=name: Tokenizer(task(n).model, rngs=nnx.Rngs(0)))
        assert type(graph.encoder).__module__ == f"tokenizer.backbones.{name}"
        assert set(graph.decoder.last) <= set(vars(graph.decoder))


def gradient(task, mesh, rules, batch):
    """The loss and its gradient on a mesh, parameters and batch placed by the rules."""
    with jax.set_mesh(mesh), use_rules(rules):
        model = fresh(lambda: task.init(nnx.Rngs(0)))
        graphdef, params, extra = nnx.split(model, nnx.Param, ...)
        params, sizes = nnx.to_pure_dict(params), dict(mesh.shape)
        place = lambda x, axes: jax.device_put(  # noqa: E731
            x, NamedSharding(mesh, partition_spec(axes, x.shape, rules, sizes))
        )
        params = jax.tree.map(place, params, axes_tree(model))

        def loss(params, extra, batch):
            model = nnx.merge(graphdef, params, extra)
            return task.loss(model, batch, jax.random.key(0))[0]

        extra = jax.device_put(nnx.to_pure_dict(extra), NamedSharding(mesh, jax.P()))
        differentiate = jax.jit(jax.value_and_grad(loss), compiler_options=QUICK)
        found = differentiate(params, extra, place_batch(batch, mesh, rules))
        return jax.device_get(found), params


def agree(task):
    """One device and eight, batch and channels cut up, compute the same gradient; returns how many
    parameters were cut."""
    batch = pages()[0]
    rules = {"B": ("data", "fsdp"), "D": "fsdp", "F": "tensor", "O": "tensor", "I": "fsdp"}
    cube = meshes.build({"data": 2, "fsdp": 2, "tensor": 2})
    one = meshes.build({"data": 1}, jax.devices()[:1])
    (loss, grads), _ = gradient(task, one, {"B": "data"}, batch)
    (cut_loss, cut_grads), params = gradient(task, cube, rules, batch)
    np.testing.assert_allclose(cut_loss, loss, rtol=1e-5)
    for (path, wanted), found in zip(
        jax.tree_util.tree_flatten_with_path(grads)[0], jax.tree.leaves(cut_grads), strict=True
    ):
        np.testing.assert_allclose(
            found, wanted, atol=1e-5 + 1e-4 * np.abs(wanted).max(),
            err_msg=jax.tree_util.keystr(path),
        )  # fmt: skip
    return len([p for p in jax.tree.leaves(params) if not p.sharding.is_fully_replicated])


@pytest.mark.parametrize("name", sorted(TINY))
def test_one_device_agrees_with_eight(name):
    assert agree(task(name)) > 8


def test_bfloat16_maps_come_near_and_what_is_outside_them_stays_float32():
    pixels = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 3)), jnp.float32)
    found = []
    for dtype in ("float32", "bfloat16"):
        own = task("patch")
        own = dataclasses.replace(own, model=dataclasses.replace(own.model, dtype=dtype))
        graphdef, params = nnx.split(fresh(lambda own=own: own.init(nnx.Rngs(0))))

        def painted(params, graphdef=graphdef):
            out = nnx.merge(graphdef, params)(pixels)
            assert out.quantized.values.dtype == jnp.float32
            return out.pixels

        grads = jax.eval_shape(jax.grad(lambda p, run=painted: run(p).mean()), params)
        assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.float32)}
        found.append(jax.jit(painted, compiler_options=QUICK)(params))
    exact, near = found
    assert near.dtype == jnp.float32
    assert 1e-5 < jnp.abs(near - exact).mean() / jnp.abs(exact).mean() < 0.05
    with pytest.raises(ValueError, match="dtype 'half' is not one of float32, bfloat16"):
        TokenizerConfig(dtype="half")


def test_every_convolution_but_the_last_runs_in_bfloat16():
    config = dataclasses.replace(task("conv").model, dtype="bfloat16")
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Tokenizer(config, rngs=nnx.Rngs(0))))
    page = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda s, x: nnx.merge(graphdef, s)(x).pixels)(state, page)
    made = [
        equation.outvars[0].aval.dtype
        for equation in jaxpr.jaxpr.eqns
        if equation.primitive.name == "conv_general_dilated"
    ]
    assert len(made) > 20 and made[-1] == jnp.float32 and set(made[:-1]) == {jnp.dtype("bfloat16")}
