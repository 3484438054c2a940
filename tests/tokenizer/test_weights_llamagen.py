"""The convolutional tokenizer as LlamaGen's `vq_model`: both ways with a reference of our own, and
files as it publishes them."""

import argparse
import json
import os

import numpy as np
import pytest

from configs.tokenizer import vq16
from pipeline.export.diffusers import VQMODEL
from pipeline.export.family import export, import_weights
from pipeline.export.llamagen_tokenizer import VQ
from pipeline.export.torch_files import add_torch, open_any, open_torch
from pipeline.tasks import task_of
from tests.tokenizer.runs import arrays_of, config_of, ok, run_of
from train.export import ExportError, FormatError
from train.export.folder import model_arrays

torch = pytest.importorskip("torch")
reference = pytest.importorskip("pipeline.export.llamagen_reference")

NOISE = ("latents of noise", "codes of noise", "decoded pixels of noise")


def small(*, cosine=True):
    """LlamaGen's widths at f4, and no pages: 128 channels are slow."""
    config = config_of(cosine=cosine, multipliers=(1, 1, 2), latent=16, num_groups=32)
    config.model.backbone.update(width=128, num_blocks=2)
    del config.data.page
    return config


def theirs_of():
    """A random model of the reference, with a codebook that is not at length 1."""
    torch.manual_seed(0)
    model = reference.VQModel((1, 1, 2), 16, reference.Codebook(32, 4, unit=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        model.quantize.embedding.weight.normal_()
        model.quantize.codebook_used += 7
    return model


def test_a_published_file_comes_in_and_goes_out(tmp_path):
    model = theirs_of()
    tensors = model.state_dict()
    path = tmp_path / "vq_ds4.pt"
    torch.save({"model": tensors, "steps": 9, "args": argparse.Namespace(lr=1.0)}, path)
    config = small()
    parity = ok(import_weights(VQ, path, config, tmp_path / "run"), *NOISE)
    assert parity.found["codes of noise"]["used"] > 4
    assert parity.found["decoded pixels of noise"]["scale"] > 0.3
    parity = export(VQ, tmp_path / "run", tmp_path / "out", parity=False)
    assert not parity.notes  # LlamaGen takes rows of any length
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.json", "model.safetensors", "parity.json",
    ]  # fmt: skip
    again = torch.load(add_torch(tmp_path / "out"), weights_only=True)["model"]
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        if name != "quantize.codebook_used":
            assert torch.equal(again[name], tensor), name
    assert not again["quantize.codebook_used"].any()
    model.load_state_dict(again)  # every name, and no other


def test_ours_goes_out_and_on_to_diffusers(tmp_path):
    pytest.importorskip("diffusers")
    config = small()
    codebook = lambda values: {  # noqa: E731
        "params/quantizer/table": 3 * values["params/quantizer/table"],
        "extra/quantizer/shift": np.full((32, 4), 0.5, np.float32),
    }
    run = run_of(config, tmp_path / "run", codebook)
    parity = ok(export(VQ, run, tmp_path / "out"), "ours -> theirs -> ours", *NOISE)
    assert len(parity.notes) == 1 and "32 of 32 code vectors are table + shift" in parity.notes[0]
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["encoder_ch_mult"] == [1, 1, 2] and said["codebook_l2_norm"] is True
    import_weights(VQ, tmp_path / "out", config, tmp_path / "back", parity=False)
    assert arrays_of(tmp_path / "back")["extra/quantizer/started"]
    ok(export(VQMODEL, tmp_path / "back", tmp_path / "diffusers"), *NOISE)


def test_a_plain_codebook_is_said_beside_the_weights(tmp_path):
    config = small(cosine=False)
    export(VQ, run_of(config, tmp_path / "run"), tmp_path / "out", parity=False)
    assert VQ.read_config(tmp_path / "out", config).quantizer.codebook.cosine is False
    (tmp_path / "out" / "config.json").unlink()  # a published file says nothing, and is cosine
    with pytest.raises(ExportError, match=r"codebook\.cosine: True there, False here"):
        import_weights(VQ, tmp_path / "out", config, tmp_path / "no")
    (tmp_path / "out" / "config.json").write_text('{"encoder_ch_mult": [1, 2]}')
    with pytest.raises(ExportError, match="an encoder_ch_mult that is not its decoder_ch_mult"):
        VQ.read_config(tmp_path / "out", config)


@pytest.mark.parametrize(
    ("said", "change"),
    [
        (r"backbone\.width 64 .only 128", {"width": 64}),
        (r"backbone\.num_blocks 1 .only 2", {"num_blocks": 1}),
        (r"conv\.num_groups 16 .only 32", {"conv": {"num_groups": 16}}),
        (r"conv\.middle_attention False .only True", {"conv": {"middle_attention": False}}),
        (r"attention_levels \(0,\) .only the lowest", {"conv": {"attention_levels": (0,)}}),
        (r"multipliers \(2, 1, 2\) .only 1 at first", {"conv": {"multipliers": (2, 1, 2)}}),
    ],
)
def test_what_llamagen_has_fixed_is_named(said, change):
    config = small()
    config.model.backbone.update(change)
    with pytest.raises(ExportError, match=f"LlamaGen's vq_model cannot express .*{said}"):
        VQ.table(config.model)


def expected(multipliers, latent=256, size=16384, code=8):
    """Names and shapes of LlamaGen's file, as its paper's code has them, written out."""
    found = {"quantize.embedding.weight": (size, code), "quantize.codebook_used": (65536,)}

    def conv(name, num_in, num_out, side=3):
        found[f"{name}.weight"], found[f"{name}.bias"] = (num_out, num_in, side, side), (num_out,)

    def norm(name, width):
        found[f"{name}.weight"] = found[f"{name}.bias"] = (width,)

    def res(name, num_in, num_out):
        norm(f"{name}.norm1", num_in)
        conv(f"{name}.conv1", num_in, num_out)
        norm(f"{name}.norm2", num_out)
        conv(f"{name}.conv2", num_out, num_out)
        if num_in != num_out:
            conv(f"{name}.nin_shortcut", num_in, num_out, 1)

    def attn(name, width):
        norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", width, width, 1)

    widths = [128 * times for times in multipliers]
    for half, order, count in (("encoder", widths, 2), ("decoder", widths[::-1], 3)):
        before, low, last = order[0], widths[-1], len(widths) - 1
        for i, width in enumerate(order):
            place = f"{half}.conv_blocks.{i}"
            for j in range(count):
                res(f"{place}.res.{j}", before, width)
                before = width
                if width == low and i == (last if half == "encoder" else 0):
                    attn(f"{place}.attn.{j}", width)
            if i < last:
                conv(f"{place}.{'down' if half == 'encoder' else 'up'}sample.conv", width, width)
        res(f"{half}.mid.0", low, low)
        attn(f"{half}.mid.1", low)
        res(f"{half}.mid.2", low, low)
        norm(f"{half}.norm_out", order[-1])
    conv("encoder.conv_in", 3, 128)
    conv("encoder.conv_out", widths[-1], latent)
    conv("quant_conv", latent, code, 1)
    conv("post_quant_conv", code, latent, 1)
    conv("decoder.conv_in", latent, widths[-1])
    conv("decoder.conv_out", 128, 3)
    return found


@pytest.mark.parametrize("multipliers", [(1, 1, 2, 2, 4), (1, 2, 2, 4)], ids=["VQ-16", "VQ-8"])
def test_published_models_have_our_tensors_at_full_size(multipliers):
    config = vq16.get_config()
    config.model.backbone.downsampling = 2 ** (len(multipliers) - 1)
    config.model.backbone.conv.multipliers = multipliers
    shapes = VQ.table(config.model).their_shapes(model_arrays(task_of(config)))
    found = {name: tuple(shape) for name, (_, shape) in shapes.items()}
    assert found == expected(multipliers)
    with torch.device("meta"):
        theirs = reference.VQModel(multipliers, 256, reference.Codebook(16384, 8, unit=True))
    assert found == {name: tuple(t.shape) for name, t in theirs.state_dict().items()}
    low = len(multipliers) - 1
    for name, shape in {  # of research: the names that are easily wrong
        "encoder.conv_in.weight": (128, 3, 3, 3), "encoder.conv_out.weight": (256, 512, 3, 3),
        f"encoder.conv_blocks.{low}.attn.1.q.weight": (512, 512, 1, 1),
        "decoder.conv_blocks.0.attn.2.proj_out.weight": (512, 512, 1, 1),
        "quant_conv.weight": (8, 256, 1, 1), "post_quant_conv.weight": (256, 8, 1, 1),
        "decoder.conv_in.weight": (512, 256, 3, 3), "decoder.conv_out.weight": (3, 128, 3, 3),
    }.items():  # fmt: skip
        assert found[name] == shape


def test_files_of_pytorch_are_read_and_nothing_in_them_runs(tmp_path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    averaged = {"a": 2 * tensors["a"]}
    torch.save({"model": tensors, "ema": averaged, "optimizer": {"lr": 1}}, tmp_path / "a.pt")
    np.testing.assert_array_equal(open_any(tmp_path)["a"][1:], [[6, 8, 10]])
    torch.save(tensors, tmp_path / "a.pt")
    found = open_torch(tmp_path / "a.pt")
    assert str(found["b"].dtype) == "bfloat16" and found["b"][...].astype(float).tolist() == [1, 1]
    assert found["a"].shape == (2, 3)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was run"),)

    torch.save({"model": {"a": Evil()}}, tmp_path / "evil.pt")
    with pytest.raises(FormatError, match=r"evil\.pt is no whole file of tensors"):
        open_torch(tmp_path / "evil.pt")
    assert not (tmp_path / "was run").exists()
    with pytest.raises(FormatError, match=r"several files of weights \(a\.pt, evil\.pt\)"):
        open_any(tmp_path)
    (tmp_path / "evil.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-40])
    with pytest.raises(FormatError, match="no whole file"):
        open_torch(tmp_path / "evil.pt")
    torch.save({"steps": 3}, tmp_path / "evil.pt")
    with pytest.raises(FormatError, match="no tensors by name"):
        open_torch(tmp_path / "evil.pt")
    with pytest.raises(FileNotFoundError, match="neither safetensors nor"):
        open_any(tmp_path / "nowhere")
    with pytest.raises(ExportError, match=r"no tokenizer of LlamaGen .*give the file of vq_model"):
        VQ.read_config(tmp_path / "a.pt", small())
