"""The tokenizer as diffusers' `VQModel`: config.json and diffusion_pytorch_model.safetensors.

A cosine codebook leaves with rows of length 1, since `VQModel` takes the row of least Euclidean
distance from latents of any length; and comes in as cosine if all rows have that length and ours is
to be. `VQModel.encode` returns latents, which `decode` codes; our codes are decoded by
`decode(codes, force_not_quantize=True, shape=(B, y, x, Z))`.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from pipeline.export.family import Family
from pipeline.export.pages import Foreign, compare
from pipeline.export.torch_files import foreign, open_any
from pipeline.export.vq import are_unit, build_model, read_json, settled, table_of, with_settings
from tokenizer.weights import (
    DIFFUSERS,
    EMBEDDING,
    diffusers_config,
    from_diffusers,
    strange_in_diffusers,
    wanting_in_diffusers,
)  # fmt: skip
from train.export import ExportError, FormatError, Parity, Stored, Table

STEM = "diffusion_pytorch_model"
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(rf"(attentions\.\d+)\.({'|'.join(_OLD)})\.")


def _table(model: ConfigDict) -> Table:
    return table_of(model, "diffusers' VQModel", wanting_in_diffusers, DIFFUSERS)


def _opened(folder: Path) -> dict[str, Stored]:
    """The tensors of a folder, of which other precisions may lie beside (`.fp16.safetensors`), and
    attention by its names of today."""
    folder = Path(folder)
    own = folder / f"{STEM}.safetensors"
    tensors = open_any(own if own.is_file() else folder)
    found = {_OLD_NAME.sub(lambda m: f"{m[1]}.{_OLD[m[2]]}.", name): x for name, x in
             tensors.items()}  # fmt: skip
    if len(found) != len(tensors):
        raise FormatError(f"{folder} has attention by its old and its new names: keep one of them")
    return found


def _write_config(config: ConfigDict, folder: Path) -> None:
    said = diffusers_config(build_model(config.model))
    page = config.get("data", {}).get("page", {})
    if sides := [page[side] for side in ("width_px", "height_px") if side in page]:
        said["sample_size"] = max(sides)
    (folder / "config.json").write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")


def _read_config(folder: Path, config: ConfigDict) -> ConfigDict:
    """Our `config.model` for a folder of diffusers. Raises `ExportError` naming all of it that this
    tokenizer has not."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it says what the weights beside it are")
    said = read_json(path)
    if problems := strange_in_diffusers(said):
        raise ExportError(f"{path} asks for {'; '.join(problems)}, which the tokenizer has not")
    settings = from_diffusers(said, build_model(config.model))
    embedding = _opened(folder).get(EMBEDDING)
    cosine = bool(config.model.quantizer.codebook.cosine)
    unit = embedding is not None and bool(are_unit(embedding[...]).all())
    settings["quantizer"]["codebook"]["cosine"] = cosine and unit
    return with_settings(config.model, settings)


def _compare(run: Path, folder: Path, parity: Parity) -> None:
    torch, library = foreign("torch"), foreign("diffusers")
    theirs = library.VQModel.from_pretrained(
        folder, torch_dtype=torch.float32, low_cpu_mem_usage=False
    ).eval()
    last = lambda x: x.permute(0, 2, 3, 1).numpy()  # noqa: E731

    @torch.no_grad()
    def latents(pixels: np.ndarray) -> Any:
        return theirs.encode(torch.tensor(pixels).permute(0, 3, 1, 2)).latents

    @torch.no_grad()
    def codes(pixels: np.ndarray) -> np.ndarray:
        z = latents(pixels)
        _, _, (_, _, indices) = theirs.quantize(z)
        return indices.reshape(len(z), *z.shape[2:]).numpy()

    @torch.no_grad()
    def decode(codes: np.ndarray) -> np.ndarray:
        indices, shape = torch.tensor(codes).long().flatten(), (*codes.shape, theirs_width)
        if theirs.config.lookup_from_codebook:
            made = theirs.decode(indices, force_not_quantize=True, shape=shape)
        else:
            rows = theirs.quantize.get_codebook_entry(indices, shape)
            made = theirs.decode(rows, force_not_quantize=True)
        return last(made.sample)

    theirs_width = theirs.quantize.embedding.weight.shape[1]
    compare(run, Foreign(lambda pixels: last(latents(pixels)), codes, decode), parity)


VQMODEL = Family(
    library="diffusers", table=_table, write_config=_write_config, read_config=_read_config,
    compare=_compare, stem=STEM, opened=_opened,
    settled=functools.partial(settled, to_unit=True),
)  # fmt: skip
