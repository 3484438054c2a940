"""Programs that need nothing but JAX: `jax.export`'s StableHLO of what a bundle is asked, for any
number of pages, on CPUs, CUDA GPUs and TPUs.

    encode   pixels [b Y X 3] uint8 -> codes [b y x Q]
    decode   codes [b y x Q] -> pixels [b Y X 3] uint8
    plan     prompt ids [b S], padded, and their lengths [b] -> ids [b S]: the prompt, then the plan
    print    what a blueprint tells the decoder, and its canonical page -> pixels [b Y X 3] uint8

Two things are not in them, because they are no arrays. `plan` is the planner alone, greedy: the
grammar and the copy automaton that hold `Bundle.plan` to valid pages and verbatim words are
programs of the host. And between `plan` and `print` a blueprint is typeset with fonts:
`decoder.conditioning.condition` and `canonical_page` make what `print` takes.

Weights stand beside the programs as float32 in `MODEL.npz`, one for all programs, and are their
first argument. `contract.json` says what each takes and gives, with the SHA-256 of every file, and
`run.py` shows how to call one.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import runpy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export as jax_export

from blueprint import vocab
from blueprint.schema import Blueprint
from decoder.conditioning import canonical_page, condition
from layers.kernels import use_kernel
from layers.native.rows import use_native
from pipeline.bundle import Bundle
from pipeline.printing import decoder_press
from pipeline.tasks import decoder_task
from sampling.engine import Engine
from sampling.printing import print_codes
from train.checkpoint import arrays
from train.checkpoint.manifest import git_revision
from train.config import build
from train.data.sources import DataConfig, Pages
from train.export import Parity
from train.export.tensors import fresh_folder
from train.model import Model

SCHEMA = 1
PLATFORMS = ("cpu", "cuda", "tpu")
RUN = Path(__file__).with_name("run_compiled.py")

Weights = Mapping[str, Mapping[str, Any]]
Probes = Mapping[str, Mapping[str, Callable[..., Any]]]


@dataclasses.dataclass(frozen=True)
class Program:
    """One function of a bundle: `function(probes of each model, *inputs)`, and an example of its
    inputs, of which the first axis is the batch."""

    models: tuple[str, ...]
    function: Callable[..., Any]
    inputs: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]


def weights_of(model: Model) -> dict[str, Any]:
    """Its arrays by the names that they have in checkpoints and in `MODEL.npz`."""
    return arrays.named(_tree(model))


def _tree(model: Model) -> dict[str, Any]:
    return {"params": model.weights, "extra": model.extra}


def bound(models: Mapping[str, Model], program: Program) -> Callable[..., Any]:
    """The function of weights by name and of arrays."""
    own = {name: models[name] for name in program.models}
    graphs = {
        name: nnx.graphdef(nnx.eval_shape(lambda m=model: m.task.init(nnx.Rngs(0))))
        for name, model in own.items()
    }

    def run(weights: Weights, *inputs: Any) -> Any:
        probes = {}
        for name, model in own.items():
            leaves = [weights[name][key] for key in weights_of(model)]
            tree = jax.tree.unflatten(jax.tree.structure(_tree(model)), leaves)
            module = nnx.merge(graphs[name], tree["params"], tree["extra"])
            probes[name] = {
                key: functools.partial(f, module) for key, f in model.task.probes().items()
            }
        return program.function(probes, *inputs)

    return run


def plan_greedily(probes: Mapping[str, Callable[..., Any]], ids: Any, lengths: Any) -> Any:
    """The likeliest ids after each prompt, until the end of the plan or of the row; behind the end
    stand zeros."""
    S = ids.shape[1]
    end, places = vocab.token("end"), jnp.arange(S)
    prompt = jnp.where(places < lengths[:, None], ids, 0)
    logits, cache = probes["step"](prompt, probes["empty_cache"](lengths), jnp.zeros_like(lengths))
    last = jnp.take_along_axis(logits, (lengths - 1)[:, None, None], axis=1)[:, 0]

    def running(carry: Any) -> Any:
        at, _, _, done, _ = carry
        return jnp.any(~done & (at < S))

    def one(carry: Any) -> Any:
        at, logits, written, done, cache = carry
        token, live = logits.argmax(axis=-1).astype(ids.dtype), ~done & (at < S)
        here = (places == at[:, None]) & live[:, None]
        written = jnp.where(here, token[:, None], written)
        logits, cache = probes["step"](token[:, None], cache, jnp.minimum(at, S - 1))
        return at + live, logits[:, 0], written, done | (token == end), cache

    start = (lengths, last, prompt, jnp.zeros(lengths.shape, bool), cache)
    return jax.lax.while_loop(running, one, start)[2]


def programs(bundle: Bundle) -> dict[str, Program]:
    """What a bundle is asked, with example inputs of one page."""
    contract = bundle.contract
    grid, Q, (X, Y) = tuple(contract["grid"]), contract["num_codes"], bundle.page_px
    shown = decoder_task(bundle.decoder.config).model.conditioning
    press = decoder_press(bundle.decoder.config)
    blank = Blueprint(X, Y, "#fff", ())
    told = {n: np.asarray(x)[None] for n, x in condition(blank, shown).items()}
    names = tuple(told)
    codes = np.zeros((1, *grid, Q), np.int32)

    def printed(probes: Probes, canonical: Any, key_data: Any, *conditions: Any) -> Any:
        given = dict(zip(names, conditions, strict=True))
        given["glyph_codes"] = probes["tokenizer"]["encode"](canonical)
        B = canonical.shape[0]
        blank = jnp.zeros((B, *grid, Q), jnp.int32)
        masked = jnp.ones((B, *grid), bool)
        keys = jax.random.wrap_key_data(key_data)
        chosen = print_codes(probes["decoder"], blank, masked, given, keys, press=press)
        return probes["tokenizer"]["decode"](chosen)

    length = bundle.planner.task.model.max_length  # type: ignore[attr-defined]  # a planner's task
    ids = np.zeros((1, length), np.int32)
    pixels, data = canonical_page(blank)[None], np.zeros((1, 2), np.uint32)
    return {
        "encode": Program(
            ("tokenizer",), lambda p, x: p["tokenizer"]["encode"](x), {"pixels": pixels}, ("codes",)
        ),
        "decode": Program(
            ("tokenizer",), lambda p, x: p["tokenizer"]["decode"](x), {"codes": codes}, ("pixels",)
        ),
        "plan": Program(
            ("planner",), lambda p, *xs: plan_greedily(p["planner"], *xs),
            {"ids": ids, "lengths": np.ones((1,), np.int32)}, ("ids",),
        ),
        "print": Program(
            ("tokenizer", "decoder"), printed,
            {"canonical_page": pixels, "key_data": data, **told}, ("pixels",),
        ),
    }  # fmt: skip


def lowered(models: Mapping[str, Model], program: Program) -> jax_export.Exported:
    """The program for all platforms and any batch."""
    (b,) = jax_export.symbolic_shape("b")
    shape_of = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)  # noqa: E731
    weights = jax.tree.map(shape_of, {n: weights_of(models[n]) for n in program.models})
    inputs = [jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype) for x in program.inputs.values()]
    with use_kernel("xla"), use_native("off"):  # the others are for one platform each
        jitted = jax.jit(bound(models, program))
        return jax_export.export(jitted, platforms=PLATFORMS)(weights, *inputs)


def export_compiled(source: Path, out: Path, *, parity: bool = True) -> Parity:
    """Write the programs of a bundle into the new folder `out`, and `parity.json`: what they gave
    from there, called as `run.py` calls them, beside what the models give."""
    bundle = Bundle(source)
    models = {name: getattr(bundle, name) for name in ("tokenizer", "planner", "decoder")}
    with fresh_folder(out) as folder:
        said = {name: _written(models, p, folder / f"{name}.stablehlo")
                for name, p in programs(bundle).items()}  # fmt: skip
        for name, model in models.items():
            kept = {k: np.asarray(x) for k, x in weights_of(model).items()}
            np.savez(folder / f"{name}.npz", **kept)  # type: ignore[arg-type]  # names, not options
        shutil.copy(RUN, folder / "run.py")
        contract = {
            "schema": SCHEMA, "jax": jax.__version__, "programs": said,
            "token_contract": bundle.contract, "vocab_size": vocab.SIZE,
            "end_id": vocab.token("end"),
            "page_px": list(bundle.page_px), "steps": list(bundle.steps),
            "git_revision": git_revision(),
            "sha256": {p.name: hashlib.sha256(p.read_bytes()).hexdigest()
                       for p in sorted(folder.iterdir())},
        }  # fmt: skip
        (folder / "contract.json").write_text(json.dumps(contract, indent=1) + "\n")
        found = Parity(f"the models themselves, jax {jax.__version__}")
        if parity:
            compare(bundle, folder, found)
        else:
            found.skipped = "--no-parity"
        found.write(folder / "parity.json")
    return found


def _written(models: Mapping[str, Model], program: Program, path: Path) -> dict[str, Any]:
    """Serialise a program; what the contract says of it."""
    made = lowered(models, program)
    path.write_bytes(made.serialize())
    shapes = lambda names, avals: {  # noqa: E731
        name: [str(aval.dtype), [str(size) for size in aval.shape]]
        for name, aval in zip(names, avals, strict=True)
    }
    count = len(program.inputs)
    return {
        "file": path.name, "models": list(program.models), "platforms": list(made.platforms),
        "calling_convention": made.calling_convention_version,
        "inputs": shapes(program.inputs, made.in_avals[-count:]),
        "outputs": shapes(program.outputs, made.out_avals),
    }  # fmt: skip


class _Free:
    """Lets the planner say anything until the end of the plan or of its row."""

    def __init__(self, room: int) -> None:
        self.room, self.finished = room, False

    def allowed(self) -> bytes:
        return bytes([1]) * vocab.SIZE

    def advance(self, token: int) -> None:
        self.room -= 1
        self.finished = token == vocab.token("end") or self.room == 0


def compare(bundle: Bundle, folder: Path, found: Parity) -> None:
    """Run what was written, for one page and for three, beside the models: drawn pages to codes
    and back, prompts to plans, blueprints to pages."""
    run = runpy.run_path(str(folder / "run.py"))["load"]
    width, height = bundle.page_px
    pages = Pages(build(DataConfig, bundle.tokenizer.config.data, path="config.data").page, 3)
    records = [pages[i] for i in range(3)]
    pixels = np.stack([record["pixels"] for record in records])
    assert pixels.shape[1:3] == (height, width)
    for n in (1, 3):
        own = np.asarray(bundle.tokenizer.probes["encode"](pixels[:n]))
        found.ids(f"encode, {n} pages", own, run(folder, "encode")(pixels[:n]))
        painted = bundle.pixels(own)
        found.numbers(f"decode, {n} pages", painted, run(folder, "decode")(own), tolerance=1)
    prompts = [vocab.encode_prompt(record["prompt"]) for record in records]
    length = programs(bundle)["plan"].inputs["ids"].shape[1]
    lengths = np.array([len(ids) for ids in prompts], np.int32)
    padded = np.stack([np.pad(ids, (0, length - len(ids))) for ids in prompts]).astype(np.int32)
    engine = Engine(bundle.planner.probes)
    free = [functools.partial(_Free, length - n - 1) for n in lengths]
    rows = engine.generate(prompts, free, jax.random.split(jax.random.key(0), 3))
    whole = run(folder, "plan")(padded, lengths)
    for i, row in enumerate(rows):
        found.ids(f"plan, prompt {i}", row, whole[i, lengths[i] : lengths[i] + len(row)])
    blueprints = [record["blueprint"] for record in records]
    keys = jax.random.split(jax.random.key(0), 3)
    shown = decoder_task(bundle.decoder.config).model.conditioning
    told = [condition(blueprint, shown) for blueprint in blueprints]
    given = [np.stack([row[name] for row in told]) for name in told[0]]
    canonical = np.stack([canonical_page(blueprint) for blueprint in blueprints])
    own = bundle.pixels(bundle.codes(blueprints, seed=0))
    theirs = run(folder, "print")(canonical, np.asarray(jax.random.key_data(keys)), *given)
    found.numbers("print, 3 pages", own, theirs, tolerance=1)
