"""The tokenizer as LlamaGen's `vq_model` (VQ-16, VQ-8 and those of other multipliers): its tensors'
names in model.safetensors, and its `ModelArgs` in config.json, which is what its class reads.

Published files are `.pt`, a dict with the tensors under `model`, without a config: shapes say it
all but whether codes are compared at length 1, which by `ModelArgs`' default and in all that was
published they are. `torch_files.add_torch` writes such a file beside the export.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from pipeline.export.family import Family
from pipeline.export.pages import Foreign, compare
from pipeline.export.torch_files import foreign, open_any
from pipeline.export.vq import build_model, read_json, settled, table_of, with_settings
from tokenizer.weights import LLAMAGEN, from_llamagen, llamagen_config, wanting_in_llamagen
from train.export import ExportError, Parity, Table

_USED = {"quantize.codebook_used": np.zeros((65536,), np.float32)}  # codes of past batches


def _table(model: ConfigDict) -> Table:
    return table_of(model, "LlamaGen's vq_model", wanting_in_llamagen, LLAMAGEN, _USED)


def _write_config(config: ConfigDict, folder: Path) -> None:
    said = llamagen_config(build_model(config.model))
    (folder / "config.json").write_text(json.dumps(said, indent=2) + "\n")


def _said(source: Path) -> dict[str, Any]:
    """`ModelArgs` beside the weights, or nothing."""
    path = (source if source.is_dir() else source.parent) / "config.json"
    found = read_json(path) if path.is_file() else {}
    if found.get("encoder_ch_mult") != found.get("decoder_ch_mult"):
        raise ExportError(f"{path} has an encoder_ch_mult that is not its decoder_ch_mult")
    return found


def _read_config(source: Path, config: ConfigDict) -> ConfigDict:
    """Our `config.model` for LlamaGen's tensors. Raises `ExportError` when they are no tokenizer's
    of its."""
    shapes = {name: tuple(tensor.shape) for name, tensor in open_any(source).items()}
    try:
        settings = from_llamagen(shapes, _said(source), build_model(config.model))
    except (KeyError, IndexError, ValueError) as problem:
        raise ExportError(
            f"{source} has no tokenizer of LlamaGen ({problem!r}): give the file of vq_model"
        ) from problem
    return with_settings(config.model, settings)


def _compare(run: Path, source: Path, parity: Parity) -> None:
    torch = foreign("torch")
    reference = foreign("pipeline.export.llamagen_reference")
    tensors = {name: torch.tensor(np.asarray(tensor[...], np.float32)) for name, tensor in
               open_any(source).items()}  # fmt: skip
    own = build_model(ConfigDict(read_json(run / "config.json")).model)
    size, width = tensors["quantize.embedding.weight"].shape
    unit = bool(_said(source).get("codebook_l2_norm", True))
    theirs = reference.VQModel(
        own.backbone.conv.multipliers, tensors["quant_conv.weight"].shape[1],
        reference.Codebook(size, width, unit=unit),
    )  # fmt: skip
    theirs.load_state_dict({**theirs.quantize.state_dict(prefix="quantize."), **tensors})
    theirs.eval()

    def latents(pixels: np.ndarray) -> Any:
        return theirs.latents(torch.tensor(pixels).permute(0, 3, 1, 2))

    def decode(codes: np.ndarray) -> np.ndarray:
        return theirs.decode_codes(torch.tensor(codes).long()).permute(0, 2, 3, 1).numpy()

    with torch.no_grad():
        compared = Foreign(
            lambda pixels: latents(pixels).permute(0, 2, 3, 1).numpy(),
            lambda pixels: theirs.quantize.nearest(latents(pixels)).numpy(),
            decode,
        )
        compare(run, compared, parity)


VQ = Family(
    library="LlamaGen's vq_model, by a reference of our own", table=_table,
    write_config=_write_config, read_config=_read_config, compare=_compare, opened=open_any,
    settled=functools.partial(settled, to_unit=False),
)  # fmt: skip
