"""Planners of Hugging Face's library and ours are the same model, both ways, in every layout."""

import functools
import json
import os
import shutil

os.environ["HF_HUB_OFFLINE"] = "1"

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import pipeline
from blueprint import codec, vocab
from blueprint.reading import PromptReader
from layers.rope import RopeScaling, rotations
from pipeline.export import transformers as hub
from pipeline.export import vocabulary
from pipeline.export.family import export, import_weights
from train.checkpoint import Checkpoints
from train.checkpoint.arrays import nest
from train.checkpoint.weights import list_keys
from train.config import load
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import plan
from train.export import ExportError, FormatError, Writer, open_tensors
from train.export.folder import model_arrays
from train.state import State

TEXTS = ['a sign "Öl & Brot – 日本" and „K9“', "ein Plakat <plan> «Café à la carte»<|begin|>"]
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
SIZES = {
    "vocab_size": vocab.SIZE, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 160,
}  # fmt: skip
LAYOUTS = {
    "llama": (
        "Llama",
        {"head_dim": 8, "rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": 5e5}},
    ),
    "llama, tied and stretched": (
        "Llama",
        {
            "tie_word_embeddings": True,
            "num_key_value_heads": 4,
            "rope_parameters": {"rope_theta": 1e4, **LLAMA3},
        },
    ),
    "qwen3": ("Qwen3", {"head_dim": 16, "rope_parameters": {"rope_theta": 1e6}}),
    "qwen3, tied": (
        "Qwen3",
        {"head_dim": 6, "tie_word_embeddings": True, "num_key_value_heads": 1},
    ),
}


def theirs(kind, values, folder, **how):
    """A model that their library makes and saves; no array of it is what it would start as."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **values})
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    with torch.no_grad():
        for array in model.parameters():
            array.add_(0.2 * torch.randn_like(array))
    model.to(how.pop("dtype", torch.float32)).save_pretrained(folder, **how)
    return folder


def ours(folder, **values):
    """The tiny planner's config with the model that a folder of theirs needs."""
    config = load("configs/tiny/planner.py")
    with config.unlocked():
        config.model.update({"max_length": 160, "tie_embeddings": True, **values})
        config.model = hub.read_config(folder, config)
    return config


def stored(folder):
    return {name: tensor[...] for name, tensor in open_tensors(folder).items()}


def same(before, after):
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert array.dtype == after[name].dtype, name
        np.testing.assert_array_equal(array, after[name], err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_theirs_is_ours_and_ours_is_theirs(layout, tmp_path):
    source = theirs(*LAYOUTS[layout], tmp_path / "theirs")
    config = ours(source)
    found = import_weights(hub.FAMILY, source, config, tmp_path / "run")
    assert found.ok and not found.notes, str(found)
    assert {"logits, our pages", "greedy, 64 steps"} <= found.found.keys()
    whole = layout in ("llama", "qwen3, tied")
    back = export(hub.FAMILY, tmp_path / "run", tmp_path / "out", parity=whole)
    if whole:
        assert back.ok and back.found["ours -> theirs -> ours"]["arrays"] >= 11, str(back)
    same(stored(source), stored(tmp_path / "out"))
    import_weights(hub.FAMILY, tmp_path / "out", config, tmp_path / "again", parity=False)
    same(stored(tmp_path / "run" / "weights"), stored(tmp_path / "again" / "weights"))


def test_halves_in_many_files_come_and_go(tmp_path):
    halves = {"dtype": torch.bfloat16, "max_shard_size": "60KB"}
    source = theirs(*LAYOUTS["qwen3"], tmp_path / "theirs", **halves)
    assert len([*source.glob("model-*.safetensors")]) > 2
    found = import_weights(hub.FAMILY, source, ours(source), tmp_path / "run")
    assert found.ok, str(found)
    out = tmp_path / "out"
    export(hub.FAMILY, tmp_path / "run", out, dtype="bfloat16", parity=False)
    same(stored(source), stored(out))
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert transformers.AutoModelForCausalLM.from_pretrained(out).dtype == torch.bfloat16


def test_the_averages_of_a_checkpoint_go_out(tmp_path):
    config = load("configs/tiny/planner.py")
    shapes = model_arrays(pipeline.planner_task(config))
    rng = np.random.default_rng(0)
    params, ema = (
        list_keys(nest({n: rng.normal(size=s).astype(d) for n, (d, s) in shapes.items()}))["params"]
        for _ in range(2)
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(config.to_dict()))
    with Checkpoints(tmp_path / "run" / "checkpoints", identity={}) as checkpoints:
        checkpoints.save(State(np.int32(3), params, {}, {}, ema), 3)
    export(hub.FAMILY, tmp_path / "run", tmp_path / "out", parity=False)
    found = stored(tmp_path / "out")
    np.testing.assert_array_equal(found["model.embed_tokens.weight"], ema["embed"]["table"])
    up = ema["blocks"]["layer"]["mlp"]["up"]["kernel"]
    np.testing.assert_array_equal(found["model.layers.1.mlp.up_proj.weight"], up[1].T)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """A tokenizer of another library: byte-level pieces, with a mark that it finds in a text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|begin|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator(TEXTS, trainer)
    marks = [("<|begin|>", 0)]
    bpe.post_processor = processors.TemplateProcessing("<|begin|> $A", special_tokens=marks)
    bpe.save(str(path := tmp_path_factory.mktemp("bpe") / "tokenizer.json"))
    return path


@pytest.fixture(scope="module", params=["tied", "untied"])
def continued(request, prompts, tmp_path_factory):
    """A pretrained model with a vocabulary of its own, and the run that goes on from it."""
    folder = tmp_path_factory.mktemp(request.param)
    values = {"vocab_size": 320, "tie_word_embeddings": request.param == "untied"}
    source = theirs("Llama", {**LAYOUTS["llama, tied and stretched"][1], **values}, folder / "hub")
    shutil.copyfile(prompts, source / "tokenizer.json")
    config = ours(source, prompt_vocab_size=320, tie_embeddings=request.param == "tied")
    found = import_weights(hub.FAMILY, source, config, folder / "run")
    return source, config, folder / "run", found


def test_a_pretrained_model_goes_on_with_its_own_tokenizer(continued, prompts):
    source, config, run, found = continued
    fresh = ["params/embed/table"]
    fresh += [] if config.model.tie_embeddings else ["params/head/kernel"]
    noted = json.loads((run / "weights" / "manifest.json").read_text())
    assert noted["imported"]["fresh"] == fresh
    assert [note.split(": ")[1] for note in found.notes] == fresh
    assert found.ok, str(found)
    assert {"logits, random ids", "logits, our pages", "greedy, 64 steps"} == found.found.keys()
    mine, other = stored(run / "weights"), stored(source)
    np.testing.assert_array_equal(
        mine["params/prompt_embed/table"], other["model.embed_tokens.weight"]
    )
    model = pipeline.load_model(run)
    assert not config.data.prompt_tokenizer  # the caller's config stays his
    path = model.config.data.prompt_tokenizer
    assert path == str(run / "tokenizer.json")
    reader = PromptReader(path)
    assert reader.identity == PromptReader(str(prompts)).identity
    reader.require_learnt(model.manifest["identity"]["prompt_tokenizer"], where="the run")
    started = pipeline.run(resolved(model.config))  # what scripts/train.py does
    assert started.task.prompt_tokenizer == reader.identity


def resolved(config):
    """A run's config as a config file has it."""
    loaded = load("configs/tiny/planner.py")
    with loaded.unlocked():
        loaded.model, loaded.data = config.model, config.data
    return loaded


def test_a_planner_of_two_vocabularies_goes_out_as_one(continued, tmp_path):
    _, config, run, _ = continued
    out = tmp_path / "out"
    found = export(hub.FAMILY, run, out)
    assert found.ok, str(found)
    assert {"likeliest of all ids", "ours -> theirs -> ours"} <= found.found.keys()
    other = transformers.AutoModelForCausalLM.from_pretrained(out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    reader = PromptReader(str(run / "tokenizer.json"))
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        assert ids == reader.ids(text) and max(ids) > vocab.SIZE
    given = tokenizer(TEXTS, return_tensors="pt", padding=True)
    sampled = other.generate(**given, do_sample=True, max_new_tokens=40)
    new = sampled[:, given.input_ids.shape[1] :]
    assert new.shape[1] > 8 and (new < vocab.SIZE).all()
    found = import_weights(hub.FAMILY, out, config, tmp_path / "again", parity=False)
    assert not found.notes
    same(stored(run / "weights"), stored(tmp_path / "again" / "weights"))
    identity = PromptReader(str(tmp_path / "again" / "tokenizer.json")).identity
    assert identity == reader.identity
    if config.model.tie_embeddings:  # and a head that was trained on elsewhere is one
        head = other.lm_head.weight.data
        head[3] += 1
        other.save_pretrained(out)
        with pytest.raises(ExportError, match="tie_embeddings: False there, True here"):
            import_weights(hub.FAMILY, out, config, tmp_path / "third", parity=False)


def test_their_library_reads_a_prompt_as_we_do(tmp_path):
    vocabulary.write(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    every = "".join(map(chr, (*range(0x80), *range(0x80, 0xD800, 0x1F), *range(0x10000, 0x10040))))
    for text in (*TEXTS, every, "<plan> <end><pad>", ""):
        assert tokenizer(text).input_ids == vocab.encode_prompt(text)
        assert tokenizer.decode(vocab.string(text)) == text
    page = codec.encode(plan(0, PageStyle())[1])
    said = tokenizer.decode(page)
    assert said.startswith("<v1><number:") and "<source:" in said
    assert len(tokenizer) == vocab.SIZE
    rows = tokenizer(["a", "bc"], padding=True)
    assert rows.input_ids[0][0] == vocab.PAD and rows.attention_mask[0][0] == 0
    assert tokenizer.eos_token_id == vocab.token("end")


@pytest.mark.parametrize("theta, factor", [(5e5, 32.0), (1e4, 8.0), (1e4, 1.0)])
def test_stretched_rotations_are_theirs(theta, factor):
    values = {"rope_theta": theta, **LLAMA3, "factor": factor}
    values |= {"original_max_position_embeddings": 2048} if factor == 8 else {}
    config = transformers.LlamaConfig(head_dim=64, rope_parameters=values)
    places = torch.tensor([[0, 1, 17, 1000, 8191]])
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    cos, sin = rotary(torch.zeros(1), places)
    length = values["original_max_position_embeddings"]
    ours = rotations(
        jnp.asarray(places.numpy(), jnp.float32)[..., None], 64, theta=theta,
        scaling=RopeScaling(factor, 1.0, 4.0, length),
    )  # fmt: skip
    for mine, other in zip(ours, (cos, sin), strict=True):
        # an angle of 8191 is known to 5e-4 in float32
        np.testing.assert_allclose(mine[0, :, 0], other[0, :, :32].numpy(), atol=1e-3)
        np.testing.assert_allclose(mine[0, :3, 0], other[0, :3, :32].numpy(), atol=4e-6)
    plain = rotations(jnp.array([[[700.0]]]), 64, theta=theta)
    stretched = rotations(jnp.array([[[700.0]]]), 64, theta=theta, scaling=RopeScaling(factor))
    apart = np.abs(np.array(plain) - np.array(stretched)).max()
    assert (apart > 0.1) == (factor > 1)


@pytest.mark.parametrize(
    "values",
    [
        {"factor": 0.5}, {"low_turns": 4.0}, {"low_turns": 0.0}, {"original_length": 0},
    ],
)  # fmt: skip
def test_a_scaling_that_is_none_is_refused(values):
    with pytest.raises(ValueError, match="is no scaling: factor and original_length are 1 or more"):
        RopeScaling(**values)


PUBLISHED = {  # as the file of Llama 3.2 1B has it, and as one of Qwen3 0.6B, without the sizes
    "llama": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "head_dim": 64,
        "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072,
        "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
        "attention_bias": False, "mlp_bias": False, "hidden_act": "silu", "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": True,
        "rope_scaling": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3",
        },
        "torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0", "vocab_size": 128256,
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128,
        "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960,
        "max_window_layers": 28, "num_attention_heads": 16, "num_hidden_layers": 28,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": None,
        "rope_theta": 1000000, "sliding_window": None, "use_sliding_window": False,
        "attention_bias": False, "tie_word_embeddings": True, "vocab_size": 151936,
    },
}  # fmt: skip


def config_of(said, tmp_path, **values):
    (tmp_path / "config.json").write_text(json.dumps(said))
    config = load("configs/tiny/planner.py")
    with config.unlocked():
        config.model.update(values)
    return hub.read_config(tmp_path, config)


def test_published_configs_are_read(tmp_path):
    model = config_of(PUBLISHED["llama"], tmp_path, prompt_vocab_size=1)
    assert model.rope_scaling.to_dict() == {
        "factor": 32.0, "low_turns": 1.0, "high_turns": 4.0, "original_length": 8192,
    }  # fmt: skip
    assert (model.rope_theta, model.vocab_size, model.prompt_vocab_size) == (5e5, 1321, 128256)
    assert model.max_length == 416 and model.blocks.norm_eps == 1e-5
    assert not model.blocks.qk_norm and model.blocks.num_kv_heads == 8
    large = load("configs/planner/1b.py", ["--config.model.prompt_vocab_size=128256",
                                           "--config.model.rope_scaling.factor=32"])  # fmt: skip
    assert hub.read_config(tmp_path, large).to_dict() == large.model.to_dict()
    model = config_of(PUBLISHED["qwen3"], tmp_path, prompt_vocab_size=1, max_length=50000)
    assert model.blocks.qk_norm and model.blocks.head_size == 128
    assert model.max_length == 40960 and model.rope_scaling.factor == 1


@pytest.mark.parametrize(
    "kind, change, said",
    [
        ("llama", {"attention_bias": True}, "attention_bias is set, and our layers have none"),
        ("llama", {"mlp_bias": True}, "mlp_bias is set"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is set"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu', and ours is silu"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type is 'linear'"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "llama3"}},
            "llama3 has no factor; .* no low_freq",
        ),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5, and ours is 1"),
        ("llama", {"model_type": "mistral"}, "model_type is 'mistral', not 'llama' or 'qwen3'"),
        ("llama", {"architectures": ["LlamaForTokenClassification"]}, "it is a LlamaForToken"),
        ("llama", {"hidden_size": None}, "hidden_size is missing"),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 4096}, "in a sliding window"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "sliding window"),
        (
            "qwen3",
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
            "rope_parameters differ from layer to layer",
        ),
        ("qwen3", {}, "151936 ids, which are not our 1321: .*prompt_vocab_size=151936"),
    ],
)
def test_what_our_planner_is_not_is_named(kind, change, said, tmp_path):
    with pytest.raises(ExportError, match=said):
        config_of(PUBLISHED[kind] | change, tmp_path)


def test_what_does_not_fit_is_named(tmp_path, prompts):
    source = theirs("Llama", {"vocab_size": 320}, tmp_path / "hub")
    config = ours(source, prompt_vocab_size=320)
    go = functools.partial(import_weights, hub.FAMILY, source, parity=False)
    with pytest.raises(ExportError, match=r"there is no .*tokenizer.json, by which the model"):
        go(config, tmp_path / "run")
    shutil.copyfile(prompts, source / "tokenizer.json")
    other = json.loads(prompts.read_text())
    other["model"]["merges"].pop()
    (tmp_path / "other.json").write_text(json.dumps(other))
    config.data.prompt_tokenizer = str(tmp_path / "other.json")
    with pytest.raises(ExportError, match=r"other.json is not .*tokenizer.json, by which the"):
        go(config, tmp_path / "run")
    config.data.prompt_tokenizer = ""
    config.model.blocks.update(hidden=48, norm_eps=1e-5)
    with pytest.raises(ExportError, match=r"hidden: 40 there, 48 here; blocks.norm_eps: 1e-06 the"):
        go(config, tmp_path / "run")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hub", "other.json"]
    (source / "config.json").write_text("[]")
    with pytest.raises(FormatError, match="no config of transformers"):
        go(config, tmp_path / "run")
    model = load("configs/tiny/planner.py", ["--config.model.blocks.width=18"])
    model.model.blocks.qk_norm = False
    with pytest.raises(ExportError, match="no width 18 that num_heads 4 does not divide"):
        hub.write_config(model, tmp_path)
    model.model.blocks.width = 16
    model.model.prompt_vocab_size = 9
    Writer(tmp_path, {"a": (np.float32, ())}).__exit__(KeyError)
    with pytest.raises(ExportError, match="'' and the planner has 9 prompt ids: put the tokenizer"):
        hub.write_config(model, tmp_path)
