"""Prompts read in the pieces of another vocabulary: the plan is spelled in ours all the same."""

import hashlib
import json

import jax
import numpy as np
import pytest
from flax import nnx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import pipeline
from blueprint import codec, vocab
from blueprint.check import copy_fidelity
from blueprint.grammar import Limits
from blueprint.reading import PromptReader
from layers.block import BlockConfig
from planner.examples import example
from planner.model import PlannerConfig
from planner.task import PlannerTask
from sampling.planning import Plates, plan_pages
from tests.probes import of_model
from tests.tokenizer.menu import QUICK
from train.checkpoint import CheckpointError, Checkpoints, manifest
from train.config import load
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import plan
from train.plan import identity

PAGES = [plan(seed, PageStyle()) for seed in range(24)]
PROMPTS = ['a sign "Öl & Brot – 日本" and „K9“', "ein Plakat «Café à la carte»"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A small byte-level BPE of our prompts, with a mark that it puts before every text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([prompt for prompt, _ in PAGES], trainer)
    bpe.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    bpe.save(str(target := tmp_path_factory.mktemp("bpe") / "tokenizer.json"))
    return target


@pytest.fixture(scope="module")
def reader(path):
    return PromptReader(str(path))


def test_an_example_has_pieces_and_then_our_own_ids(path, reader):
    bpe = Tokenizer.from_file(str(path))
    prompt, page = PAGES[3]
    record = {"prompt": prompt, "blueprint": page}
    row = example(record, 416, reader)
    pieces = row["ids"][1 : np.argmax(row["planned"]) - 1]
    assert (pieces >= vocab.SIZE).all() and (pieces < vocab.SIZE + reader.num_pieces).all()
    assert bpe.decode((pieces - vocab.SIZE).tolist()) == prompt
    assert 0 not in pieces - vocab.SIZE  # our own marks stand in place of its
    assert len(pieces) < 0.7 * len(prompt.encode())
    assert vocab.name(row["ids"][0]) == "prompt"
    assert codec.decode(row["ids"][row["planned"]].tolist()) == page
    same = PromptReader().ids(prompt)
    assert same == vocab.encode_prompt(prompt) == example(record, 416)["ids"][: len(same)].tolist()


def tiny(reader):
    blocks = BlockConfig(16, 2, 2, 1, 8, 32, qk_norm=True)
    config = PlannerConfig(blocks, vocab.SIZE, 320, prompt_vocab_size=reader.num_pieces)
    return PlannerTask(config, reader.identity)


@pytest.fixture(scope="module")
def fresh(reader):
    task = tiny(reader)
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: task.init(nnx.Rngs(0))))
    make = jax.jit(lambda: nnx.state(task.init(nnx.Rngs(0))), compiler_options=QUICK)
    return task, graphdef, nnx.to_pure_dict(make())


def test_it_plans_end_to_end_with_every_quote_verbatim(fresh, reader):
    task, graphdef, params = fresh
    probes = of_model(task, graphdef, params, compiler_options=QUICK)
    plates = Plates(Limits((128, 128), 200), min_type_px=8, reader=reader)
    for prompt, page in zip(PROMPTS, plan_pages(probes, PROMPTS, plates), strict=True):
        assert copy_fidelity(prompt, page) == 1.0
    assert [t.string for t in page.texts if t.source == "verbatim"] == ["Café à la carte"]


def test_the_loss_learns_both_tables_and_predicts_over_ours_alone(fresh, reader):
    task, graphdef, params = fresh
    assert params["prompt_embed"]["table"].shape == (reader.num_pieces, 16)
    rows = [
        example(dict(zip(("prompt", "blueprint"), p, strict=True)), 320, reader) for p in PAGES[:2]
    ]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def loss(params):
        model = nnx.merge(graphdef, params)
        given = jax.tree.map(jax.numpy.asarray, batch)
        return task.loss(model, given, jax.random.key(0))[0], model(given["ids"]).logits

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)
    (value, logits), grads = run(params)
    assert logits.shape[-1] == vocab.SIZE and np.isfinite(value)
    read = np.unique(batch["ids"][batch["ids"] >= vocab.SIZE]) - vocab.SIZE
    moved = np.nonzero(np.abs(grads["prompt_embed"]["table"]).sum(-1))[0]
    np.testing.assert_array_equal(moved, read)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert task.group(("prompt_embed", "table")) == "rest"


def config_with(path, size):
    return load(
        "configs/tiny/planner.py",
        [f"--config.data.prompt_tokenizer={path}", f"--config.model.prompt_vocab_size={size}"],
    )


def test_the_file_is_part_of_what_a_run_is(path, reader, tmp_path):
    run = pipeline.run(config_with(path, 512))  # a pretrained table may have spare rows
    assert run.task.prompt_tokenizer == hashlib.sha256(path.read_bytes()).hexdigest()
    first = Checkpoints(tmp_path, identity=identity(run.task, run.loop))
    (tmp_path / "1").mkdir()
    manifest.write(tmp_path / "1", {"identity": first.identity, "files": {}, "arrays": {}})
    value = json.loads(path.read_text())
    value["model"]["merges"] = value["model"]["merges"][:-1]
    (other := tmp_path / "other.json").write_text(json.dumps(value))
    again = pipeline.run(config_with(other, 512))
    with pytest.raises(CheckpointError, match=r"prompt_tokenizer: '[0-9a-f]{64}' there, '[0-9a-f]"):
        Checkpoints(tmp_path, identity=identity(again.task, again.loop)).restore({})
    reader.require_learnt(run.task.prompt_tokenizer, where="runs/planner")
    message = "runs/planner learnt to read prompts by SHA-256 .*'', is bytes: put the file"
    with pytest.raises(ValueError, match=message):
        PromptReader().require_learnt(run.task.prompt_tokenizer, where="runs/planner")


def test_what_does_not_fit_is_named(path, reader, tmp_path):
    need = reader.num_pieces
    with pytest.raises(ValueError, match=f"prompt_vocab_size is 9, but .* has {need} ids: set it"):
        pipeline.run(config_with(path, 9))
    with pytest.raises(
        ValueError, match=r"size is 9, but data.prompt_tokenizer reads bytes: set it to 0"
    ):
        pipeline.run(config_with("", 9))
    with pytest.raises(FileNotFoundError, match=r"prompt_tokenizer: there is no file .*gone.json"):
        pipeline.run(config_with(tmp_path / "gone.json", 9))
    (broken := tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ValueError, match=r"broken.json is no tokenizer.json"):
        pipeline.run(config_with(broken, 9))
