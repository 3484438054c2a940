"""Small runs of the convolutional tokenizer, as exports take them and imports make them."""

import json

import numpy as np

from configs.tiny import tokenizer as tiny
from pipeline.tasks import task_of
from train.export.folder import model_arrays, open_weights, write_weights

COMPARED = tuple(
    f"{what} of {on}"
    for on in ("pages", "noise")
    for what in ("latents", "codes", "decoded pixels")
)


def config_of(*, cosine=False, learning="gradient", **conv):
    """A small convolutional tokenizer on small pages."""
    config = tiny.get_config()
    config.model.backbone.update(name="conv", downsampling=4, width=8, num_blocks=1)
    small = {"multipliers": (1, 1, 2), "latent": 6, "num_groups": 4}
    config.model.backbone.conv.update(small | conv)
    config.model.quantizer.update(name="vq", num_codes=1)
    config.model.quantizer.codebook.update(size=32, width=4, cosine=cosine, learning=learning)
    config.model.dtype = "bfloat16"  # which is compared in float32 all the same
    config.data.page.update(width_px=96, height_px=104)
    return config


def run_of(config, folder, spoil=None):
    """A run of random arrays, all as large as in training; `spoil` gives others."""
    shapes, rng = model_arrays(task_of(config)), np.random.default_rng(1)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    values = {}
    for name, (dtype, shape) in shapes.items():
        part, value = name.split("/")[-1], rng.normal(size=shape)
        if part == "kernel":
            value /= np.sqrt(np.prod(shape[:-1]))
        elif part in ("bias", "scale"):
            value = 0.2 * value + (part == "scale")
        elif part in ("table", "mean") and config.model.quantizer.codebook.cosine:
            value /= np.linalg.norm(value, axis=-1, keepdims=True)
        elif part not in ("table", "mean"):
            value = np.zeros(shape)
        values[name] = value.astype(dtype)
    values |= spoil(values) if spoil else {}
    with write_weights(folder, shapes, {"step": 0, "identity": {}}) as writer:
        for name, value in values.items():
            writer.put(name, value)
    return folder


def arrays_of(run):
    """A run's arrays by name."""
    return {name: array[...] for name, array in open_weights(run)[0].items()}


def ok(parity, *names):
    """Everything agrees, and what is named was compared."""
    assert parity.ok, str(parity)
    assert set(names) <= set(parity.found), parity.found.keys()
    return parity
