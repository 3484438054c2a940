"""The decoder under the names of LlamaGen's GPT, both directions, every option, every size; and as
a Llama where it is one."""

import argparse
import dataclasses
import json

import numpy as np
import pytest
import torch
from ml_collections import ConfigDict
from safetensors.torch import save_file

from decoder import weights
from pipeline.export import family, llamagen, transformers_decoder
from pipeline.export.llamagen_args import HEADS, ModelArgs, args_of_shapes, shapes, swiglu
from pipeline.export.llamagen_gpt import random_state
from pipeline.export.torch_files import add_torch, open_torch
from pipeline.tasks import decoder_task, load_model
from train.export import ExportError, FormatError
from train.export.folder import model_arrays, open_weights, write_weights

torch.set_num_threads(1)  # more would spin on a shared machine
BLOCKS = {
    "width": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "head_size": 16,
    "hidden": 256, "norm_eps": 1e-5,
}  # fmt: skip
CLASSES = {"num_classes": 5, "zero_prefix_rotation": True}
CAPTIONS = {"caption_width": 24, "zero_prefix_rotation": True}


def config(told, blocks=BLOCKS, side=8, **changes):
    return ConfigDict(
        {
            "task": "decoder",
            "model": {
                "blocks": dict(blocks), "num_codes": 1, "codebook_size": 48,
                "conditioning": {"downsampling": 8}, "objective": "causal", "rope_theta": 10000.0,
                **told, **changes,
            },
            "drop_blueprint": 0.1,
            "data": {"page": {"height_px": 8 * side, "width_px": 8 * side}},
        }
    )  # fmt: skip


def trained(folder, config):
    """A run whose arrays are at random, of the size of those in `random_state`."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    made, rng = model_arrays(decoder_task(config)), np.random.default_rng(0)
    with write_weights(folder, made, {"step": 3, "identity": {}}) as writer:
        for name, (_, shape) in made.items():
            one = name.endswith("scale")
            fan = (
                1
                if one
                else np.prod(shape) / max(shape[0], shape[-1]) / (2 if "blocks" in name else 1)
            )
            writer.put(name, rng.normal(size=shape) * (0.2 if one else max(fan, 1) ** -0.5) + one)
    return folder


def args_for(told, **changes):
    text = {"model_type": "t2i", "cls_token_num": 120, "caption_dim": 24}
    own = text if told is CAPTIONS else {"num_classes": 5}
    return ModelArgs(32, 2, 2, vocab_size=48, block_size=64, **own, **changes)


def holds(parity, *, num=3):
    assert parity.ok, str(parity)
    names = [n for n in parity.found if n.startswith(("logits", "greedy"))]
    assert len(names) == num and parity.found["greedy codes"]["count"] == 2 * 64
    assert parity.found["logits"]["max_abs"] <= 1e-4 and parity.found["logits"]["scale"] > 1


@pytest.mark.parametrize(
    "told, blocks",
    [
        (CLASSES, {}),
        (CLASSES, {"num_kv_heads": 1, "hidden": 40, "norm_eps": 1e-6}),
        (CAPTIONS, {}),
    ],
    ids=["classes", "gqa", "captions"],
)
def test_ours_goes_out_and_comes_back(tmp_path, told, blocks):
    run = trained(tmp_path / "run", config(told, {**BLOCKS, **blocks}))
    parity = family.export(llamagen.DECODER, run, tmp_path / "out")
    holds(parity)
    assert parity.found["ours -> theirs -> ours"]["different"] == []
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    args = ModelArgs(**said)  # all of LlamaGen's names and no other
    theirs = llamagen.open_any(tmp_path / "out")
    assert {name: tensor.shape for name, tensor in theirs.items()} == shapes(args)


@pytest.mark.parametrize("told", [CLASSES, CAPTIONS], ids=["classes", "captions"])
def test_theirs_comes_and_goes_back(tmp_path, told):
    args = args_for(told)
    state, source = random_state(args, 0), tmp_path / "theirs"
    source.mkdir()
    save_file(state, source / "model.safetensors")
    (source / "config.json").write_text(json.dumps(dataclasses.asdict(args)))
    holds(family.import_weights(llamagen.DECODER, source, config(told), tmp_path / "run"))
    assert load_model(tmp_path / "run").manifest["imported"]["fresh"] == []
    family.export(llamagen.DECODER, tmp_path / "run", tmp_path / "back", parity=False)
    back = open_torch(add_torch(tmp_path / "back"))  # the one file that LlamaGen's scripts take
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(back[name][...], tensor.numpy())


@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict", ""])
def test_published_files_say_what_they_are_by_their_shapes(tmp_path, wrapper):
    args = args_for(CLASSES, **swiglu(32, 40))
    state = random_state(args, 1) | {"freqs_cis": torch.zeros(65, 8, 2)}
    flags = argparse.Namespace(gpt_model="GPT-B", image_size=256)
    saved = {wrapper: state, "args": flags, "steps": 7} if wrapper else state
    torch.save(saved, tmp_path / "c2i.pt")
    made = config(CLASSES, {**BLOCKS, "hidden": 40})
    parity = family.import_weights(
        llamagen.DECODER, tmp_path / "c2i.pt", made, tmp_path / "run", parity=False
    )
    assert parity.skipped
    kept, _ = open_weights(tmp_path / "run")
    np.testing.assert_array_equal(
        kept["params/head/kernel"][...][:, 0].T, state["output.weight"].numpy()
    )


def test_tensors_of_a_checkpoint_are_read_where_they_lie(tmp_path):
    whole = torch.arange(60, dtype=torch.float32).reshape(10, 6)
    saved = {
        "plain": whole, "cut": whole[2:5, 1:3], "turned": whole.T, "narrow": whole.bfloat16(),
        "scalar": torch.tensor(7), "empty": torch.zeros(0, 4), "param": torch.nn.Parameter(whole),
    }  # fmt: skip
    torch.save(saved, tmp_path / "new.pt")
    found = open_torch(tmp_path / "new.pt")
    for name, tensor in saved.items():
        assert found[name].shape == tuple(tensor.shape)
        read = np.float32(found[name][...])
        np.testing.assert_array_equal(read, tensor.detach().float().numpy())
    np.testing.assert_array_equal(found["turned"][1:3], whole.T[1:3])
    torch.save(saved, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(FormatError, match="old format"):
        open_torch(tmp_path / "old.pt")


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


def test_a_checkpoint_of_more_than_tensors_is_refused(tmp_path, capsys):
    torch.save({"model": random_state(args_for(CLASSES), 0), "extra": Evil()}, tmp_path / "a.pt")
    with pytest.raises(FormatError, match="safely"):
        llamagen.read_args(tmp_path / "a.pt", config(CLASSES))
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "b.pt")
    with pytest.raises(ExportError, match=r"no GPT of LlamaGen's: it has no tok_embeddings"):
        llamagen.read_args(tmp_path / "b.pt", config(CLASSES))
    assert "this ran" not in capsys.readouterr().out


def test_a_decoder_of_blueprints_starts_from_llamagens_trunk(tmp_path):
    args, source = args_for(CAPTIONS), tmp_path / "theirs"
    source.mkdir()
    torch.save({"model": random_state(args, 2)}, source / "t2i.pt")
    made = config({}, conditioning={"downsampling": 8, "max_characters": 8})
    parity = family.import_weights(llamagen.DECODER, source, made, tmp_path / "run")
    holds(parity)  # of its trunk, codes in and out behind LlamaGen's caption
    found, noted = open_weights(tmp_path / "run")
    fresh = noted["imported"]["fresh"]
    parts = {name.split("/")[1] for name in fresh}
    assert parts == {name.split("/")[1] for name in weights.OF_BLUEPRINTS}
    assert {name.split("/")[1] for name in found} - parts == {"blocks", "codes_in", "head", "norm"}
    assert np.abs(found["params/regions_in/kernel"][...]).max() > 0
    with pytest.raises(ExportError, match=r"no place for this decoder's blueprint \(copies_in, co"):
        family.export(llamagen.DECODER, tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_weights_are_rounded_alike(tmp_path):
    run = trained(tmp_path / "run", config(CLASSES))
    parity = family.export(llamagen.DECODER, run, tmp_path / "out", dtype="bfloat16")
    holds(parity)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"zero_prefix_rotation": False}, "zero_prefix_rotation False"),
        ({"positions": "line"}, "positions 'line'"),
        ({"num_codes": 2}, "num_codes 2"),
        ({"head": "depth"}, "head 'depth'"),
        ({"ordered": True}, "ordered"),
        ({"blocks": {**BLOCKS, "qk_norm": True}}, "blocks.qk_norm"),
        ({"blocks": {**BLOCKS, "head_size": 8}}, "blocks.head_size 8"),
        ({"num_classes": 0, **CAPTIONS, "num_caption_tokens": 77}, "num_caption_tokens 77"),
        (
            {"num_classes": 0, "objective": "masked", "zero_prefix_rotation": False},
            "'masked'.*bluep",
        ),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_llamagen_cannot_express_is_named(changes, said):
    with pytest.raises(ExportError, match=said):
        llamagen.DECODER.table(config({**CLASSES, **changes}).model)


def test_pages_are_square_and_settings_are_asked_for(tmp_path):
    made = config(CLASSES)
    made.data.page.width_px = 128
    with pytest.raises(ExportError, match="makes 8 x 16 codes"):
        llamagen.args_of(made)
    torch.save(random_state(args_for(CLASSES), 0), tmp_path / "a.pt")
    other = config({"caption_width": 24}, {**BLOCKS, "num_layers": 3}, rope_theta=100.0)
    with pytest.raises(ExportError) as problem:
        family.import_weights(llamagen.DECODER, tmp_path / "a.pt", other, tmp_path / "run")
    for name in ("num_layers", "rope_theta", "num_classes", "caption_width", "zero_prefix"):
        assert name in str(problem.value)
    (tmp_path / "in").mkdir()
    said = dataclasses.asdict(args_for(CLASSES, class_dropout_prob=0.0))
    (tmp_path / "in" / "config.json").write_text(json.dumps(said))
    with pytest.raises(ExportError, match="no row for"):
        llamagen.DECODER.read_config(tmp_path / "in", config(CLASSES))


SIZES = {
    "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (36, 1280, 20), "XXL": (48, 1536, 24),
    "3B": (24, 3200, 32),
}  # fmt: skip
MILLIONS = {"B": 111, "L": 343, "XL": 775, "XXL": 1411, "3B": 3097}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "told", [{"num_classes": 1000}, {"caption_width": 2048}], ids=["c2i", "t2i"]
)
def test_every_size_has_llamagens_names_and_shapes(size, told):
    layers, width, heads = SIZES[size]
    text = {"model_type": "t2i", "cls_token_num": 120} if "caption_width" in told else {}
    args = ModelArgs(width, layers, heads, **text)
    blocks = llamagen.blocks_of(args)
    made = config({**told, "zero_prefix_rotation": True, "codebook_size": 16384}, blocks, side=16)
    assert llamagen.args_of(made) == args and HEADS[width] == heads
    wanted = shapes(args)
    assert args_of_shapes(wanted, num_heads=1, block_size=256) == args
    task = decoder_task(made)
    ours = model_arrays(task)
    theirs = llamagen.DECODER.table(made.model).their_shapes(ours)
    assert {name: shape for name, (_, shape) in theirs.items()} == wanted
    if not text:
        count = sum(int(np.prod(shape)) for shape in wanted.values())
        assert round(count / 1e6) == MILLIONS[size]


LINE = {"num_classes": 5, "positions": "line"}


@pytest.mark.parametrize("kv", [2, 1], ids=["heads", "gqa"])
def test_a_llama_of_codes_goes_out(tmp_path, kv):
    run = trained(tmp_path / "run", config(LINE, {**BLOCKS, "num_kv_heads": kv}))
    holds(family.export(transformers_decoder.DECODER, run, tmp_path / "out"))
    kept = llamagen.open_any(tmp_path / "out")
    head = kept["lm_head.weight"][...]
    assert head.shape == kept["model.embed_tokens.weight"].shape == (48 + 6, 32)
    np.testing.assert_allclose(head[48:], np.tile(head[:48].mean(0), (6, 1)), atol=1e-6)


def test_a_llama_of_transformers_comes_and_goes_back(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 500.0}
    sizes = LlamaConfig(
        vocab_size=54, hidden_size=32, intermediate_size=64, num_hidden_layers=2, head_dim=8,
        num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5, rope_parameters=rope,
        bos_token_id=None, eos_token_id=None, initializer_range=0.3, codebook_size=48,
        num_classes=5,
    )  # fmt: skip
    theirs = LlamaForCausalLM(sizes)
    with torch.no_grad():
        theirs.lm_head.weight[48:] = theirs.lm_head.weight[:48].mean(0)
    theirs.save_pretrained(tmp_path / "theirs")
    blocks = {"num_heads": 4, "num_kv_heads": 2, "head_size": 8, "hidden": 64}
    made = config(LINE, {**BLOCKS, **blocks}, rope_theta=500.0)
    run = tmp_path / "run"
    holds(family.import_weights(transformers_decoder.DECODER, tmp_path / "theirs", made, run))
    family.export(transformers_decoder.DECODER, run, tmp_path / "back", parity=False)
    back, state = llamagen.open_any(tmp_path / "back"), theirs.state_dict()
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_allclose(back[name][...], tensor.numpy(), atol=1e-6)
    said = json.loads((tmp_path / "theirs" / "config.json").read_text())
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({**said, "num_classes": 7}))
    with pytest.raises(ExportError, match=r"as a Llama: .*vocab_size 54, not 56"):
        transformers_decoder.DECODER.read_config(tmp_path / "theirs", made)


@pytest.mark.parametrize(
    "told, said",
    [
        (CLASSES, r"positions 'grid' \(rows and columns.*zero_prefix_rotation"),
        ({"caption_width": 24, "positions": "line"}, "caption_width"),
        ({}, "the blueprint"),
    ],
)
def test_what_a_llama_cannot_express_is_named(told, said):
    with pytest.raises(ExportError, match=said):
        transformers_decoder.DECODER.table(config(told).model)
