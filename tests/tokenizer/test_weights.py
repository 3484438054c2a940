"""The convolutional tokenizer as diffusers' `VQModel`: names, both ways, and the same numbers."""

import json
import math

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from configs.tokenizer import vq16
from pipeline.export.diffusers import VQMODEL
from pipeline.export.family import export, import_weights
from pipeline.export.llamagen_tokenizer import VQ
from pipeline.export.pages import tied
from pipeline.export.vq import are_unit
from pipeline.tasks import task_of
from tests.tokenizer.menu import KINDS
from tests.tokenizer.runs import COMPARED, arrays_of, config_of, ok, run_of
from train.export import ExportError, FormatError, Parity, open_tensors
from train.export.folder import model_arrays

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
SMALL = {
    "block_out_channels": (8, 8, 16), "down_block_types": (DOWN, DOWN, f"Attn{DOWN}"),
    "up_block_types": (f"Attn{UP}", UP, UP), "latent_channels": 6, "vq_embed_dim": 4,
    "num_vq_embeddings": 32, "norm_num_groups": 4,
}  # fmt: skip
STEM = "diffusion_pytorch_model.safetensors"


def theirs_of(folder, **options):
    """A random `VQModel`, with norms and biases that are not ones and zeros, saved."""
    torch.manual_seed(0)
    model = diffusers.VQModel(**SMALL | options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.quantize.embedding.weight.normal_()
    model.save_pretrained(folder)
    return model


CASES = {
    "attention in the lowest level": ({}, {}, {}),
    "none, lookup, two layers": (
        {"layers_per_block": 2, "lookup_from_codebook": True, "force_upcast": True,
         "mid_block_add_attention": False, "down_block_types": (DOWN,) * 3,
         "up_block_types": (UP,) * 3, "block_out_channels": (8, 12, 12), "vq_embed_dim": None,
         "act_fn": "swish"},
        {"num_blocks": 2, "width": 4},
        {"attention_levels": (), "middle_attention": False, "multipliers": (2, 3, 3)},
    ),
    "attention in two of four levels": (
        {"block_out_channels": (8, 16, 16, 24), "down_block_types":
         (DOWN, f"Attn{DOWN}", DOWN, f"Attn{DOWN}"), "up_block_types":
         (f"Attn{UP}", UP, f"Attn{UP}", UP)},
        {"downsampling": 8},
        {"attention_levels": (1, -1), "multipliers": (1, 2, 2, 3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours", "conv"), CASES.values(), ids=CASES)
def test_models_of_diffusers_come_in_and_go_out(tmp_path, theirs, ours, conv):
    model = theirs_of(tmp_path / "theirs", **theirs)
    config = config_of(**conv)
    config.model.backbone.update(ours)
    config.model.quantizer.codebook.width = 6 if "vq_embed_dim" in theirs else 4
    parity = ok(import_weights(VQMODEL, tmp_path / "theirs", config, tmp_path / "run"), *COMPARED)
    assert parity.found["codes of pages"]["used"] > 4
    assert parity.found["decoded pixels of noise"]["max_abs"] < 3e-5
    assert all(parity.found[name]["scale"] > 0.5 for name in COMPARED if "pixels" in name)
    export(VQMODEL, tmp_path / "run", tmp_path / "again", parity=False)
    again = diffusers.VQModel.from_pretrained(tmp_path / "again", low_cpu_mem_usage=False)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    free = ("lookup_from_codebook", "force_upcast", "sample_size", "_name_or_path", "act_fn",
            "vq_embed_dim")  # fmt: skip
    before, after = (json.loads(m.to_json_string()) for m in (model, again))
    assert {k: v for k, v in before.items() if k not in free} == {
        k: v for k, v in after.items() if k not in free
    }
    assert again.config.sample_size == 104 and again.config.lookup_from_codebook


def longer(values):
    """A codebook in which three rows are not at length 1 and two are shifted."""
    table, shift = values["params/quantizer/table"].copy(), values["extra/quantizer/shift"].copy()
    table[3:6] *= 3
    shift[10:12] = 0.3
    return {"params/quantizer/table": table, "extra/quantizer/shift": shift}


def test_a_cosine_codebook_leaves_at_length_1_and_training_goes_on(tmp_path):
    config = config_of(cosine=True)
    config.critic.update(weight=0.5, num_layers=2, width=8, num_groups=4)
    run = run_of(config, tmp_path / "run", longer)
    parity = ok(export(VQMODEL, run, tmp_path / "out"), "ours -> theirs -> ours", *COMPARED)
    assert [note[:20] for note in parity.notes] == ["2 of 32 code vectors", "5 of 32 code vectors"]
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["notes"] == parity.notes
    ours, theirs = arrays_of(run), open_tensors(tmp_path / "out")
    rows, before = theirs["quantize.embedding.weight"][...], ours["params/quantizer/table"]
    assert are_unit(rows).all() and not are_unit(before[3:6]).any()
    kept = [i for i in range(32) if i not in (3, 4, 5, 10, 11)]
    np.testing.assert_array_equal(rows[kept], before[kept])
    np.testing.assert_allclose(rows[3], before[3] / 3, rtol=1e-6)
    moved = before[10] + 0.3
    np.testing.assert_allclose(rows[10], moved / np.linalg.norm(moved), rtol=1e-6)

    back = tmp_path / "back"
    import_weights(VQMODEL, tmp_path / "out", config, back, parity=False)
    after = arrays_of(back)
    assert after["extra/quantizer/started"] and not ours["extra/quantizer/started"]
    assert not after["extra/quantizer/shift"].any() and ours["extra/quantizer/shift"].any()
    assert (after["extra/quantizer/share"] == np.float32(1 / 32)).all()
    assert (after["params/critic/norms/0/scale"] == 1).all()
    for name in ours:
        if name.startswith(("params/encoder", "params/decoder")):
            assert after[name].tobytes() == ours[name].tobytes(), name
    again = export(VQMODEL, back, tmp_path / "again", parity=False)
    assert not again.notes  # what has length 1 keeps its bits
    one, other = (load_file(tmp_path / name / STEM) for name in ("out", "again"))
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_a_codebook_of_averages_is_the_table(tmp_path):
    config = config_of(learning="ema")
    run = run_of(config, tmp_path / "run")
    export(VQMODEL, run, tmp_path / "out", parity=False)
    import_weights(VQMODEL, tmp_path / "out", config, tmp_path / "back", parity=False)
    before, after = arrays_of(run), arrays_of(tmp_path / "back")
    assert before["extra/quantizer/mean"].tobytes() == after["extra/quantizer/mean"].tobytes()
    config.model.quantizer.codebook.cosine = True  # as rows of length 1 could be
    with pytest.raises(ExportError, match=r"codebook\.cosine: False there, True here"):
        import_weights(VQMODEL, tmp_path / "out", config, tmp_path / "no")


def test_a_comparison_can_fail(tmp_path):
    run = run_of(config_of(), tmp_path / "run")
    export(VQMODEL, run, tmp_path / "out", parity=False)
    path = tmp_path / "out" / STEM
    tensors = load_file(path)
    tensors["encoder.down_blocks.0.downsamplers.0.conv.weight"] *= 1.01
    tensors["quantize.embedding.weight"][::2] *= -1
    tensors["decoder.conv_out.bias"] += np.float32(2e-4)
    save_file(tensors, path, metadata={"format": "pt"})
    VQMODEL.compare(run, tmp_path / "out", parity := Parity("itself"))
    assert not any(entry["ok"] for entry in parity.found.values()), str(parity)


def test_attention_by_its_older_names(tmp_path):
    theirs_of(tmp_path / "theirs")
    tensors, old = load_file(tmp_path / "theirs" / STEM), {}
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for name, tensor in tensors.items():
        for new, before in older.items():
            name = name.replace(f".{new}.", f".{before}.")
        old[name] = tensor
    assert sum("proj_attn" in name for name in old) == 2 * 5
    save_file(old, tmp_path / "theirs" / STEM, metadata={"format": "pt"})
    (tmp_path / "theirs" / STEM.replace(".safe", ".fp16.safe")).write_bytes(b"another precision")
    config = config_of()
    import_weights(VQMODEL, tmp_path / "theirs", config, tmp_path / "run", parity=False)
    value = arrays_of(tmp_path / "run")["params/decoder/middle/attention/value/kernel"]
    name = "decoder.mid_block.attentions.0.to_v.weight"
    np.testing.assert_array_equal(value[0, 0], tensors[name].T)
    save_file(old | {name: tensors[name]}, tmp_path / "theirs" / STEM)
    with pytest.raises(FormatError, match="by its old and its new names"):
        import_weights(VQMODEL, tmp_path / "theirs", config, tmp_path / "no")


STRANGE = {
    "norm_type 'spatial' .only group": {"norm_type": "spatial"},
    "attention is not mirrored": {"up_block_types": (UP, f"Attn{UP}", UP)},
    "act_fn 'gelu' .only silu or swish": {"act_fn": "gelu"},
    "in_channels 1 .only 3": {"in_channels": 1},
    "blocks of the type CrossAttnDownBlock2D": {"down_block_types": ("CrossAttnDownBlock2D",) * 3},
    "3 down and 2 up blocks for 3 widths": {"up_block_types": (UP, UP)},
    "2 levels .only 3 to 5": {"block_out_channels": (8, 8), "down_block_types": (DOWN, DOWN),
                              "up_block_types": (UP, UP)},
    "_class_name 'AutoencoderKL' .only VQModel": {"_class_name": "AutoencoderKL"},
}  # fmt: skip


@pytest.mark.parametrize(("said", "options"), STRANGE.items(), ids=STRANGE)
def test_other_models_of_diffusers_are_refused_by_name(tmp_path, said, options):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "VQModel"} | SMALL | options))
    with pytest.raises(ExportError, match=rf"config\.json asks for .*{said}"):
        VQMODEL.read_config(tmp_path, config_of())


def test_every_setting_that_differs_is_named(tmp_path):
    theirs_of(tmp_path / "theirs", layers_per_block=2)
    config = config_of(cosine=True, latent=8)
    with pytest.raises(ExportError) as problem:
        import_weights(VQMODEL, tmp_path / "theirs", config, tmp_path / "run")
    for line in ("backbone.num_blocks: 2 there, 1 here", "backbone.conv.latent: 6 there, 8 here",
                 "quantizer.codebook.cosine: False there, True here"):  # fmt: skip
        assert line in str(problem.value)
    assert str(problem.value).count(" there, ") == 3 and not (tmp_path / "run").exists()
    (tmp_path / "theirs" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        import_weights(VQMODEL, tmp_path / "theirs", config, tmp_path / "run")


@pytest.mark.parametrize("family", [VQMODEL, VQ], ids=["diffusers", "llamagen"])
@pytest.mark.parametrize("name", [name for name in KINDS if not name.startswith("vq")])
def test_other_quantizers_are_refused_by_name(family, name):
    kind = KINDS[name]
    config = config_of()
    config.model.quantizer.update(
        name=kind.name, part=kind.part, num_codes=kind.num_codes, levels=kind.levels
    )
    several = f" with {kind.num_codes} codes a position" if kind.num_codes > 1 else ""
    part = f" of {kind.kind}" if kind.kind != kind.name else ""
    with pytest.raises(
        ExportError, match=rf"cannot express .*the quantizer {kind.name}{part}{several} \(only vq\)"
    ):
        family.table(config.model)


@pytest.mark.parametrize("family", [VQMODEL, VQ], ids=["diffusers", "llamagen"])
@pytest.mark.parametrize("name", ["patch", "vit"])
def test_other_backbones_are_refused_by_name(family, name):
    config = config_of()
    config.model.backbone.update(name=name, width=16)
    with pytest.raises(ExportError, match=rf"cannot express the backbone {name} \(only conv\)$"):
        family.table(config.model)


def published(**conv):
    """VQ-16 at full size, and others of its kind."""
    config = vq16.get_config()
    config.model.backbone.conv.update(conv)
    config.model.backbone.downsampling = 2 ** (len(config.model.backbone.conv.multipliers) - 1)
    return config


AMUSED = {
    "block_out_channels": (128, 256, 256, 512, 768), "down_block_types": (DOWN,) * 5,
    "up_block_types": (UP,) * 5, "latent_channels": 64, "num_vq_embeddings": 8192,
    "layers_per_block": 2, "mid_block_add_attention": False, "lookup_from_codebook": True,
    "force_upcast": True,
}  # fmt: skip
VQ16 = {
    "block_out_channels": (128, 128, 256, 256, 512),
    "down_block_types": (DOWN,) * 4 + (f"Attn{DOWN}",), "layers_per_block": 2,
    "up_block_types": (f"Attn{UP}",) + (UP,) * 4, "latent_channels": 256, "vq_embed_dim": 8,
    "num_vq_embeddings": 16384,
}  # fmt: skip


@pytest.mark.parametrize("name", ["aMUSEd", "VQ-16", "MoVQ"])
def test_published_models_have_our_tensors_at_full_size(tmp_path, name):
    """Nothing is computed or held: theirs is on torch's `meta`, ours under `eval_shape`."""
    config = published()
    if name == "aMUSEd":
        config = published(
            multipliers=(1, 2, 2, 4, 6), attention_levels=(), middle_attention=False, latent=64
        )
        config.model.quantizer.codebook.update(size=8192, width=64, cosine=False)
    asked = VQ16 if name == "VQ-16" else AMUSED
    asked = asked | ({"norm_type": "spatial"} if name == "MoVQ" else {})
    (tmp_path / "config.json").write_text(json.dumps(asked))
    (tmp_path / STEM).write_bytes((2).to_bytes(8, "little") + b"{}")
    if name == "MoVQ":
        with pytest.raises(ExportError, match="norm_type 'spatial'"):
            VQMODEL.read_config(tmp_path, config)
        return
    wanted = VQMODEL.read_config(tmp_path, config)
    wanted.quantizer.codebook.cosine = config.model.quantizer.codebook.cosine
    assert json.dumps(wanted.to_dict()) == json.dumps(config.model.to_dict())
    with torch.device("meta"):
        theirs = diffusers.VQModel(**asked).state_dict()
    found = VQMODEL.table(config.model).their_shapes(model_arrays(task_of(config)))
    assert {n: tuple(t.shape) for n, t in theirs.items()} == {n: s for n, (_, s) in found.items()}
    if name == "VQ-16":
        assert sum(math.prod(s) for _, s in found.values()) == 71_883_403


def test_only_what_rounding_decides_is_a_tie():
    table = np.array([[1.0, 0], [-1, 0], [0, 1], [0, 1.001]], np.float32)
    z = np.zeros((1, 1, 4, 2), np.float32)
    z[0, 0, 1:3] = (1e-7, 0), (1e-3, 0)
    z[0, 0, 3] = (0, 1.0005)
    one, other = np.array([[[0, 0, 0, 2]]]), np.array([[[1, 1, 1, 3]]])
    assert tied((z, z), table, (one, other)).tolist() == [[[True, True, False, True]]]
    assert not tied((z, z), table, (one, one)).any()
    apart = z + np.array([2e-3, 0], np.float32)  # theirs may well see the other as nearer
    assert tied((z, apart), table, (one, other)).tolist() == [[[True, True, True, True]]]
