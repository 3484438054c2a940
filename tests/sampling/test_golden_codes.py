"""The same keys print the same codes: in batches of any size, on any mesh, by the slow loop, in a
stream, and nearly in a narrow cache.

What differs between batch sizes and meshes is the order in which products are summed, so logits
differ by some 1e-6 of their size. A code flips where the best two (or a cut of top-p) are as near
as that: of the some thousand choices that a case has, one in a hundred cases would. With these keys
none does, and codes are compared bit by bit.
"""

import dataclasses
import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from decoder.task import DecoderTask
from layers.attention import CACHE_DTYPES, Storage
from layers.axes import use_rules
from sampling import streaming
from sampling.guidance import doubled, told_half
from sampling.in_order import Schedule, decode_in_order_slowly, priorities, ranks
from sampling.picking import Pick
from sampling.policy import Policy
from sampling.printing import Press, print_codes
from sampling.raster import decode_raster_slowly
from tests.decoder.pages import BLOCKS, DEPTH, batch, config, every_step, given
from tests.tokenizer.menu import QUICK
from train import mesh as meshes
from train.model import Model

GRID, ROWS = (3, 4), 8
DRAWN = Policy(1.0, top_k=3, top_p=0.95, min_p=0.02)
ONE, SMALL = (dataclasses.replace(blocks, num_layers=1) for blocks in (BLOCKS, DEPTH))
DEEP = {"head": "depth", "depth_blocks": SMALL}
CASES = {
    "masked": ({"objective": "masked"}, Press(DRAWN, num_passes=3, guidance=1.5)),
    "random": ({"objective": "random"}, Press(DRAWN, num_passes=4)),
    "causal": ({}, Press(DRAWN, guidance=1.5)),
    "greedy": (DEEP, Press()),
    "certain": ({"objective": "random"}, Press(DRAWN, num_passes=4, order="blueprint")),
    "groups": ({"objective": "masked"}, Press(DRAWN, num_passes=4, order="blueprint")),
}
CUBE = {"data": 2, "fsdp": 2, "tensor": 2}


def task(name):
    """A decoder's of one layer."""
    changes, _ = CASES[name]
    return DecoderTask(config(blocks=ONE, **changes), drop_blueprint=0.1, drop_glyphs=0.1)


@functools.cache
def weights(head):
    """At random, but so that codes depend on small things and on what was attended to."""

    def make():
        made = task("greedy" if head == "depth" else "causal").init(nnx.Rngs(3))
        made.head.kernel[...] = 30 * made.head.kernel[...]
        attention = made.blocks.layer.attention
        attention.query.kernel[...] = 4 * attention.query.kernel[...]
        attention.out.kernel[...] = 10 * attention.out.kernel[...]
        return nnx.to_pure_dict(nnx.state(made))

    return jax.jit(make, compiler_options=QUICK)()


@functools.cache
def model(name, shape=()):
    """On a mesh if it has a shape."""
    if shape:
        sizes = dict(shape)
        return model(name).on(meshes.build(sizes, jax.devices()[: math.prod(sizes.values())]))
    own = task(name)
    return Model(ConfigDict({"task": "decoder"}), own, weights(own.model.head), {}, {}, "")


@functools.cache
def request():
    """Of each row: codes, which are masked, what is told and the key."""
    data = batch(ROWS, grid=GRID)
    masked = jax.random.bernoulli(jax.random.key(1), 0.8, (ROWS, *GRID))
    told = {name: np.asarray(array) for name, array in given(data).items()}
    keys = jax.random.split(jax.random.key(2), ROWS)
    return np.asarray(data["codes"], np.int32), np.asarray(masked), told, keys


@functools.cache
def program(name, shape=()):
    """One for every press and batch that it is asked for."""
    options = {"static_argnames": "press", "compiler_options": QUICK}
    return model(name, shape).probes.compiled(print_codes, **options)


def printed(name, shape=(), *, num_rows=ROWS, press=None):
    """The codes of the first rows, with keys for all that the model pads them to."""
    codes, masked, told, keys = request()
    first, of = jax.tree.map(lambda x: x[:num_rows], (codes, masked, told)), model(name, shape)
    made = of.by_rows(program(name, shape))
    return made(*first, keys[: of.bucket(num_rows)], press=press or CASES[name][1])


@functools.cache
def wanted(name):
    """All rows on one device."""
    return printed(name)


@pytest.mark.parametrize("name", CASES)
def test_in_any_batch(name):
    codes, masked, _, _ = request()
    assert (wanted(name) != codes)[masked].any()
    np.testing.assert_array_equal(wanted(name)[~masked], codes[~masked])
    for num_rows in (1, 3) if name == "causal" else (3,):
        made = printed(name, num_rows=num_rows)
        np.testing.assert_array_equal(made, wanted(name)[:num_rows])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("masked", {"data": 4, "tensor": 2}), ("random", CUBE), ("greedy", CUBE),
        ("causal", {"data": 4, "tensor": 2}),
    ],
    ids=str,
)  # fmt: skip
def test_on_any_mesh(name, shape):
    shape = tuple(shape.items())
    np.testing.assert_array_equal(printed(name, shape), wanted(name))
    if (
        name == "causal" and model(name, shape).bucket(3) == ROWS
    ):  # rows that do not divide, by the same program
        np.testing.assert_array_equal(printed(name, shape, num_rows=3), wanted(name)[:3])


def test_rows_stay_on_their_devices():
    """Over data alone nothing moves between devices, with guidance either, but once: how far the
    last page goes. Rows that do not divide are filled up, and cut."""
    of, press = model("causal", (("data", 8),)), CASES["causal"][1]
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: of.task.init(nnx.Rngs(0))))

    def run(weights, *arrays):
        made = nnx.merge(graphdef, weights)
        probes = {n: functools.partial(probe, made) for n, probe in of.task.probes().items()}
        return print_codes(probes, *arrays, press=press)

    with jax.set_mesh(of.mesh), use_rules(of.rules):
        lowered = jax.jit(run).lower(of.weights, *of.padded(request()))
        program = lowered.compile(compiler_options=QUICK)
    moved = re.findall(
        r"(all-\w+|collective-permute|reduce-scatter)(?:-start)?\(", program.as_text()
    )
    assert moved == ["all-reduce"]
    *rows, keys = request()
    for size in (ROWS, 3):
        first = jax.tree.map(lambda x, n=size: x[:n], tuple(rows))
        made = of.by_rows(functools.partial(program, of.weights))(*first, keys)
        np.testing.assert_array_equal(made, wanted("causal")[:size])


@pytest.mark.parametrize("name", ["random", "causal"])
def test_by_the_slow_loop(name):
    """Whole forwards for every pass, and no cache."""
    codes, masked, told, keys = jax.tree.map(jnp.asarray, request())
    press, of = CASES[name][1], model(name)
    twice = lambda rows: doubled(rows, rows, press.guidance)  # noqa: E731

    def write(probes, codes, masked, told, pick, order):
        if press.guidance != 1:
            told = doubled(told, dict(probes["unconditional"](told)), press.guidance)
        if name == "random":
            rows = twice((codes, *order))
            chosen, logits = probes["write_in_order"](*rows, told, pick)
        else:
            logits = probes["logits"](*twice((codes, masked)), told)
            chosen = pick(logits.reshape(logits.shape[0], -1, *logits.shape[3:]))
            chosen = chosen.reshape(logits.shape[:-1])
        return told_half(chosen, press.guidance), pick.combined(logits)

    asked = of.probes.compiled(write, compiler_options=QUICK)
    pick = Pick(keys, press.policy, press.guidance)
    if name == "random":
        rank = ranks(priorities("random", keys, math.prod(GRID)), masked)
        fill = lambda c, r, n, pick: asked(c, masked, told, pick, (r, n))  # noqa: E731
        order = Schedule(rank, press.num_passes)
        slow = decode_in_order_slowly(fill, codes, masked, pick, order)
    else:
        fill = lambda c, m, pick: asked(c, m, told, pick, ())  # noqa: E731
        slow = decode_raster_slowly(fill, codes, masked, pick)
    np.testing.assert_array_equal(wanted(name), slow)


@pytest.mark.parametrize("name", ["masked", "random", "causal", "certain", "groups"])
def test_in_a_stream(name):
    """Parts grow to the whole: what is known stays, and is known after as many passes as said."""
    rows = request()
    masked = rows[1]
    press, of = CASES[name][1], model(name)
    begin = of.probes.compiled(streaming.begin, static_argnames="press", compiler_options=QUICK)
    go_on = of.probes.compiled(
        streaming.go_on,
        donate_argnums=0,
        static_argnames=("press", "every"),
        compiler_options=QUICK,
    )
    every = GRID[1] if name == "causal" else 2
    parts = list(streaming.stream_codes(begin, go_on, rows, press=press, every=every))
    passes = [part.num_passes for part in parts]
    if name == "causal":
        last = int(np.nonzero(masked.reshape(ROWS, -1).any(axis=0))[0][-1]) + 1
        assert passes == [*range(every, last, every), last]
        for i, part in enumerate(parts[:-1], start=1):
            np.testing.assert_array_equal(part.known[:, i:], ~masked[:, i:])
    else:
        assert passes == [*range(every, press.num_passes, every), press.num_passes]
    for part, later in itertools.pairwise(parts):
        assert (part.known <= later.known).all() and part.known.sum() < later.known.sum()
        np.testing.assert_array_equal(part.codes[part.known], later.codes[part.known])
    assert parts[-1].known.all()
    np.testing.assert_array_equal(parts[-1].codes, wanted(name))
    with pytest.raises(ValueError, match="every 0 passes is never"):
        next(streaming.stream_codes(begin, go_on, rows, press=press, every=0))


@pytest.mark.parametrize("name", ["random", "greedy"])
def test_in_a_narrow_cache(name):
    """Of the codes 95 % or more are the same in bfloat16 (98 and 100 were measured), and 90 % in
    int8 (97 and 99): after one that a rounding changed, others follow."""
    masked, press = request()[1], CASES[name][1]
    for cache, least in (("bfloat16", 0.95), ("int8", 0.9)):
        made = printed(name, press=dataclasses.replace(press, cache=cache))
        assert (made == wanted(name))[masked].mean() >= least
        np.testing.assert_array_equal(made[~masked], wanted(name)[~masked])


def test_logits_of_a_narrow_cache():
    """Of their root mean square the error has less than 1 % in bfloat16, of 8 bits, and 2 % in
    int8."""
    codes, _, told, _ = jax.tree.map(jnp.asarray, request())
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: task("causal").init(nnx.Rngs(0))))

    def steps(weights, storage):
        logits, sheet = every_step(nnx.merge(graphdef, weights), codes, told, storage)
        return logits, sheet.cache[0].keys

    asked = jax.jit(steps, compiler_options=QUICK)
    found = {}
    for cache in CACHE_DTYPES:
        found[cache], keys = asked(weights("factorised"), Storage(cache))
        assert keys.dtype == cache
    exact = found["float32"]
    size = lambda x: float(jnp.sqrt((x**2).mean()))  # noqa: E731
    errors = {cache: size(found[cache] - exact) / size(exact) for cache in CACHE_DTYPES}
    assert 1e-4 < errors["bfloat16"] < 0.01 and 1e-4 < errors["int8"] < 0.02


def test_an_unknown_cache_is_named():
    with pytest.raises(ValueError, match="cache 'int4' is not known; there is: float32, bfloat16"):
        Press(cache="int4")
