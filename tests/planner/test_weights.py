"""Planners of Hugging Face's library and ours are the same model, both ways, in every layout."""

import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from ml_collections import ConfigDict

from blueprint import vocab
from layers.rope import RopeScaling, rotations
from pipeline.export import transformers as hub
from pipeline.export.family import export, import_weights
from planner import weights
from train.config import load
from train.export import ExportError, open_tensors

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
SIZES = {
    "vocab_size": vocab.SIZE, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 160,
}  # fmt: skip
LAYOUTS = {
    "llama": ("Llama", {"rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": 5e5}}),
    "llama, heads of a size of their own": ("Llama", {"head_dim": 8, "num_key_value_heads": 4}),
    "llama, tied and stretched": (
        "Llama",
        {"tie_word_embeddings": True, "rope_parameters": {"rope_theta": 1e4, **LLAMA3}},
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
    assert found.ok, str(found)
    assert {"logits, our pages", "greedy, 64 steps"} <= found.found.keys()
    back = export(hub.FAMILY, tmp_path / "run", tmp_path / "out")
    assert back.ok and back.found["ours -> theirs -> ours"]["arrays"] >= 11, str(back)
    same(stored(source), stored(tmp_path / "out"))
    again = import_weights(hub.FAMILY, tmp_path / "out", config, tmp_path / "again", parity=False)
    assert again.skipped and not again.ok
    same(stored(tmp_path / "run" / "weights"), stored(tmp_path / "again" / "weights"))
