"""Attention kernels: each is the plain one, and the one that runs is the one that can."""

import dataclasses
import functools
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import topologies
from jax.sharding import AxisType, NamedSharding

from layers import kernels, splash
from layers.axes import partition_spec, shard_map, use_rules
from layers.kernels import attend, by_cudnn, by_xla, choose, cudnn_arguments, use_kernel
from layers.masks import Mask, Packing
from scripts.bench.rows import rows_of
from tests.bundles import ROOT
from tests.tokenizer.menu import QUICK

B, T, P = 4, 150, 40  # not a multiple of a block
COUNT = jnp.array([0, 1, 7, P])
MASKS = {
    "everything": Mask(),
    "causal": Mask(causal=True),
    "some letters": Mask(prefix=P, num_present=COUNT),
    "causal after letters": Mask(causal=True, prefix=P),
    "causal after some": Mask(causal=True, prefix=P, num_present=COUNT),
}
RULES = {"B": ("data", "fsdp"), "N": "tensor", "K": "tensor"}
GPU, TPU, CPU = ("gpu", "NVIDIA H100 80GB HBM3"), ("tpu", "TPU v5 lite"), ("cpu", "cpu")


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    monkeypatch.setattr(splash, "LARGEST", 128)


def draw(num_heads=2, num_kv_heads=1, size=20, dtype=jnp.float32, num=T):
    rng = np.random.default_rng(num_heads)
    shapes = [(B, num, heads, size) for heads in (num_heads, num_kv_heads, num_kv_heads)]
    return [jnp.asarray(2 * rng.normal(size=shape), dtype) for shape in shapes]


def found(run, arrays, mask):
    """Its output, and the gradients of its squares, where a query is there."""

    def loss(arrays):
        out = run(*arrays, mask).astype(jnp.float32)
        there = jnp.ones((B, T)) if mask.num_present is None else mask.present(T)
        out = out * there[..., None, None]
        return jnp.square(out).sum(), out

    grad = jax.value_and_grad(loss, has_aux=True)
    (_, out), grads = jax.jit(grad, compiler_options=QUICK)(arrays)
    return out, grads


def agree(run, arrays, mask, *, tolerance=2e-5):
    wanted, by_hand = found(by_xla, arrays, mask)
    out, grads = found(run, arrays, mask)
    np.testing.assert_allclose(out, wanted, atol=tolerance)
    for a, b in zip(grads, by_hand, strict=True):
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        np.testing.assert_allclose(a, b, atol=10 * tolerance * jnp.abs(b).max())


@pytest.mark.parametrize("name", MASKS)
def test_splash_is_the_plain_one(name):
    agree(functools.partial(splash.attend, interpret=True), draw(), MASKS[name])


def test_splash_in_bfloat16_is_the_plain_one():
    arrays = draw(dtype=jnp.bfloat16)
    agree(functools.partial(splash.attend, interpret=True), arrays, Mask(causal=True),
          tolerance=0.08)  # fmt: skip


@pytest.mark.parametrize(("num_kv_heads", "name"), [(4, "causal"), (1, "some letters")])
def test_splash_on_eight_devices_is_the_plain_one(num_kv_heads, name):
    """Two ways of heads: where there is one kv head, both devices have it."""
    kinds = (AxisType.Auto,) * 3
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=kinds)
    arrays = draw(4, num_kv_heads)
    run = functools.partial(shard_map, functools.partial(splash.attend, interpret=True))
    with jax.set_mesh(mesh), use_rules(RULES):
        place = lambda x, axes: jax.device_put(  # noqa: E731
            x, NamedSharding(mesh, partition_spec(axes, x.shape, RULES, dict(mesh.shape)))
        )
        cut = [place(x, axes) for x, axes in zip(arrays, ("BTNH", "BSKH", "BSKH"), strict=True)]
        agree(run, cut, MASKS[name])
        masked = lambda *arrays: run(*arrays, MASKS[name])  # noqa: E731
        program = jax.jit(masked, compiler_options=QUICK).lower(*cut).compile()
        (out,) = jax.tree.leaves(program.output_shardings)
        assert out.shard_shape((B, T, 4, 20)) == (1, T, 2, 20)


@pytest.mark.parametrize("name", [*MASKS, "pairs"])
def test_what_cudnn_is_given_means_the_mask(name):
    mask = MASKS.get(name, Mask(pairs=MASKS["causal after some"].dense(T, T)))
    agree(functools.partial(by_cudnn, implementation="xla"), draw(), mask)
    _, options = cudnn_arguments(*draw(), mask)
    tabled = name == "pairs" or name.startswith("causal after")  # these never come here
    assert set(options) <= ({"mask"} if tabled else {"is_causal", "key_value_seq_lengths"})


@pytest.mark.parametrize("run", [by_xla, functools.partial(by_cudnn, implementation="xla")])
def test_packed_tokens_see_what_they_saw(run):
    mask = MASKS["causal after some"]
    packing = Packing.of(mask, T)
    packed = dataclasses.replace(mask, packed=True)

    def around(query, key, value, mask):
        found = run(*(packing.pack(x) for x in (query, key, value)), packed)
        return packing.unpack(found)

    agree(around, draw(), mask)
    there = mask.present(T)
    assert (packing.pack(there) == packed.present(T)).all()
    assert (jnp.sort(packing.there, axis=1) == jnp.arange(T)).all()
    with pytest.raises(ValueError, match="nothing is packed"):
        Mask(causal=True, prefix=P, packed=True)


def test_a_decoder_packs_its_tokens_once(monkeypatch):
    """As it does on a GPU, where otherwise every layer would."""
    config = rows_of(ROOT / "configs/tiny/decoder.py", 2, ["--config.model.objective=causal"])
    task, key = config.task, jax.random.key(0)
    model = task.init(nnx.Rngs(0))
    batch = {name: jnp.asarray(x) for name, x in config.batch.items()}

    def found():
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        loss = lambda p: task.loss(nnx.merge(graphdef, p, rest), batch, key)[0]  # noqa: E731
        return jax.jit(jax.value_and_grad(loss), compiler_options=QUICK)(params)

    wanted, packed = found(), []

    def spy(query, key, value, mask):
        packed.append(mask.packed)
        return by_cudnn(query, key, value, mask, implementation="xla")

    monkeypatch.setattr(kernels, "choose", lambda *_: "cudnn")
    monkeypatch.setattr(kernels, "by_cudnn", spy)
    again = found()
    assert packed and all(packed)
    np.testing.assert_allclose(again[0], wanted[0], rtol=1e-6)
    for a, b in zip(jax.tree.leaves(again[1]), jax.tree.leaves(wanted[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * jnp.abs(b).max())


@pytest.mark.parametrize("name", MASKS)
def test_cudnn_is_called_as_documented(name, monkeypatch):
    """Forward and backward become cuDNN's calls in a program for CUDA, which no GPU is needed to
    write down."""
    module = "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version"
    monkeypatch.setattr(module, lambda: 91000)
    arrays = draw(size=100, dtype=jnp.bfloat16)  # LlamaGen-3B's heads, no multiple of 8
    loss = lambda arrays: by_cudnn(*arrays, MASKS[name]).astype(jnp.float32).sum()  # noqa: E731
    program = jax.jit(jax.grad(loss)).trace(arrays).lower(lowering_platforms=("cuda",)).as_text()
    assert "ScaleBias" not in program  # no table
    kinds = {
        "everything": {"NO_MASK"}, "causal": {"CAUSAL"}, "some letters": {"PADDING"},
        "causal after letters": {"CAUSAL", "NO_MASK"},
        "causal after some": {"PADDING_CAUSAL", "PADDING"},
    }  # fmt: skip
    for call in ("__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"):
        assert f"{call}(" in program or f'"{call}"' in program or f"@{call}" in program
    found = set(re.findall(r'"mask_type": "(\w+)"', program.replace("\\22", '"')))
    assert found == kinds[name]


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="there is no GPU here")
@pytest.mark.parametrize("size", [64, 100, 128])
@pytest.mark.parametrize("name", [*MASKS, "pairs"])
def test_cudnn_on_a_gpu_is_the_plain_one(name, size):
    """Rows without a letter among them; rounded once more than the plain one rounds in float32."""
    mask = MASKS.get(name, Mask(pairs=MASKS["causal after some"].dense(T, T)))
    arrays = draw(4, 2, size=size, dtype=jnp.bfloat16)
    assert choose(*arrays[:2], mask) == "cudnn"
    with jax.default_matmul_precision("highest"):
        wanted, by_hand = found(by_xla, [x.astype(jnp.float32) for x in arrays], mask)
    out, grads = found(by_cudnn, arrays, mask)
    np.testing.assert_allclose(out, wanted, atol=0.03)
    for a, b in zip(grads, by_hand, strict=True):
        assert jnp.isfinite(a).all()
        error = jnp.linalg.norm(a.astype(jnp.float32) - b) / jnp.linalg.norm(b)
        assert error < 0.02, error


@pytest.mark.parametrize(
    ("device", "changes", "mask", "chosen"),
    [
        (CPU, {}, Mask(causal=True), "xla"),
        (TPU, {}, Mask(causal=True), "splash"),
        (TPU, {}, MASKS["causal after some"], "splash"),
        (TPU, {}, Mask(pairs=jnp.ones((1, 1, T, T), bool)), "xla"),
        (TPU, {"num": 100}, Mask(causal=True), "xla"),
        (TPU, {"dtype": jnp.float32}, Mask(), "splash"),
        (GPU, {}, Mask(causal=True), "cudnn"),
        (GPU, {}, MASKS["some letters"], "cudnn"),
        (GPU, {}, MASKS["causal after some"], "cudnn"),
        (GPU, {"num": 151}, MASKS["causal after some"], "cudnn"),
        (GPU, {"num": 151}, Mask(pairs=jnp.ones((1, 1, T + 1, T + 1), bool)), "xla"),
        (GPU, {"num": 151}, MASKS["some letters"], "cudnn"),
        (GPU, {"dtype": jnp.float32}, Mask(causal=True), "xla"),
        (GPU, {"size": 200}, Mask(causal=True), "cudnn"),
        (("gpu", "NVIDIA A100-SXM4-80GB"), {"size": 200}, Mask(causal=True), "xla"),
    ],
)
def test_auto_takes_the_devices_own_where_it_can_serve(device, changes, mask, chosen, monkeypatch):
    monkeypatch.setattr(kernels, "target", lambda: device)
    query, key, _ = draw(**{"dtype": jnp.bfloat16, **changes})
    assert choose(query, key, mask) == chosen
    with use_kernel("xla"):
        assert choose(query, key, mask) == "xla"


def test_a_named_kernel_that_cannot_serve_says_why(monkeypatch):
    query, key, value = draw()
    with use_kernel("splash"), pytest.raises(ValueError, match="it is for a tpu and the device is"):
        attend(query, key, value, Mask())
    monkeypatch.setattr(kernels, "target", lambda: GPU)
    with use_kernel("cudnn"), pytest.raises(ValueError, match="queries are float32 and it takes"):
        attend(query, key, value, Mask())
    monkeypatch.setattr(kernels, "target", lambda: TPU)
    pairs = Mask(pairs=jnp.ones((1, 1, T, T), bool))
    with use_kernel("splash"), pytest.raises(ValueError, match="mask says each pair for itself"):
        attend(query, key, value, pairs)
    assert attend(query, key, value, pairs).shape == query.shape  # auto falls back
    with pytest.raises(ValueError, match="'flash' is not known; there is: auto, xla, cudnn, spl"):
        use_kernel("flash").__enter__()
    with pytest.raises(ValueError, match="num_present counts keys of a prefix"):
        Mask(num_present=COUNT)


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
@pytest.mark.parametrize("name", MASKS)
def test_splash_compiles_for_a_tpu_mesh(name, monkeypatch):
    for name_of_setting in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(name_of_setting, "1")
    devices = topologies.get_topology_desc("v5e:2x2", "tpu").devices
    mesh = jax.sharding.Mesh(
        np.array(devices).reshape(2, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2
    )
    rules = {"B": "data", "N": "tensor", "K": "tensor"}
    arrays = draw(4, 2, dtype=jnp.bfloat16)
    with jax.set_mesh(mesh), use_rules(rules):
        assert kernels.target() == TPU

        def given(array, axes):
            spec = partition_spec(axes, array.shape, rules, dict(mesh.shape))
            return jax.ShapeDtypeStruct(
                array.shape, array.dtype, sharding=NamedSharding(mesh, spec)
            )

        axes = ("BTNH", "BSKH", "BSKH")
        rows = [given(x, a) for x, a in zip(arrays, axes, strict=True)]
        leaves, shape = jax.tree.flatten(MASKS[name])

        def loss(rows, *leaves):
            mask = jax.tree.unflatten(shape, leaves)
            return attend(*rows, mask).astype(jnp.float32).sum()

        cut = [given(x, "B") for x in leaves]
        program = jax.jit(jax.grad(loss)).lower(rows, *cut).compile().as_text()
        assert program.count("tpu_custom_call") >= 3  # forward, and the two of the backward pass
