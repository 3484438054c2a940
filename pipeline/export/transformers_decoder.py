"""The decoder as a `LlamaForCausalLM` whose ids are the codes, then the classes: a class goes in
and codes come out, one after another in raster order.

Only a decoder of classes with `positions: line` is one. Llama counts ids one by one and knows ids
alone, so rows and columns, captions and blueprints are refused.

Llama predicts over its whole table. The head's rows of classes are the mean of the others: their
logit is the mean of the codes', which never is the greatest. For sampling `suppress_tokens` of
`generation_config.json` takes them out, and what is left is our distribution. Read back, those rows
are not looked at.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from decoder import weights
from decoder.config import DecoderConfig
from pipeline.export.decoder_parity import NUM_STEPS, SCALES, ours_of
from pipeline.export.decoder_settings import asked, grid_of, refuse
from pipeline.export.family import Family
from pipeline.export.torch_files import foreign
from pipeline.tasks import decoder_task
from train.config import build
from train.export import ExportError, FormatError, Parity, Row, Table, open_tensors

_NEEDED = (
    "codebook_size", "num_classes", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads",
)  # fmt: skip


def _table(config: ConfigDict) -> Table:
    model = build(DecoderConfig, config, path="config.model")
    refuse("LlamaForCausalLM", weights.not_of_llama(model))
    num_classes = model.num_classes + 1

    def means(rows: np.ndarray) -> np.ndarray:
        return np.broadcast_to(rows.mean(axis=0), (num_classes, rows.shape[1]))

    rows = [Row(*row) for row in weights.llama_rows()]
    rows.append(Row(*weights.llama_rows()[-1], change=means, made=num_classes))
    return Table(tuple(rows))


def _write_config(config: ConfigDict, folder: Path) -> None:
    model, (rows, columns) = decoder_task(config).model, grid_of(config)
    blocks, num_codes = model.blocks, model.codebook_size
    kinds = {str(tensor.dtype) for tensor in open_tensors(folder).values()}
    said = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": num_codes + model.num_classes + 1, "hidden_size": blocks.width,
        "intermediate_size": blocks.hidden, "num_hidden_layers": blocks.num_layers,
        "num_attention_heads": blocks.num_heads, "num_key_value_heads": blocks.num_kv_heads,
        "head_dim": blocks.head_size, "rms_norm_eps": blocks.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "max_position_embeddings": rows * columns + 1, "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": None,
        "pad_token_id": None, "torch_dtype": kinds.pop() if len(kinds) == 1 else "float32",
        # of ours: the first ids are codes, then come the classes, and last what is not told
        "codebook_size": num_codes, "num_classes": model.num_classes, "grid": [rows, columns],
    }  # fmt: skip
    generation = {
        "suppress_tokens": list(range(num_codes, num_codes + model.num_classes + 1)),
        "max_new_tokens": rows * columns,
    }
    for name, content in (("config", said), ("generation_config", generation)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _said(folder: Path) -> dict[str, Any]:
    path = Path(folder) / "config.json"
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as problem:
        raise FormatError(f"{path} is no config of transformers ({problem})") from problem


def _read_config(folder: Path, config: ConfigDict) -> ConfigDict:
    said = _said(folder)
    rope = said.get("rope_scaling") or said.get("rope_parameters") or {}
    wanted = {
        "model_type": (said.get("model_type"), "llama"),
        "hidden_act": (said.get("hidden_act", "silu"), "silu"),
        "rope_type": (rope.get("rope_type", "default"), "default"),
        "vocab_size": (
            said.get("vocab_size"), said.get("codebook_size", 0) + said.get("num_classes", 0) + 1,
        ),
    }  # fmt: skip
    flags = ("attention_bias", "mlp_bias", "tie_word_embeddings")
    wanted |= {name: (bool(said.get(name)), False) for name in flags}
    odd = [f"{n} {there!r}, not {here!r}" for n, (there, here) in wanted.items() if there != here]
    odd += [f"no {name}" for name in _NEEDED if name not in said]
    if odd:
        raise ExportError(
            f"{folder} is no decoder of classes as a Llama: its config.json has {'; '.join(odd)} "
            "(codebook_size and num_classes are ours: codes come first, then classes)"
        )
    heads, width = said["num_attention_heads"], said["hidden_size"]
    blocks = {
        "width": width, "num_layers": said["num_hidden_layers"], "num_heads": heads,
        "num_kv_heads": said.get("num_key_value_heads") or heads,
        "head_size": said.get("head_dim") or width // heads, "hidden": said["intermediate_size"],
        "qk_norm": False, "norm_eps": said.get("rms_norm_eps", 1e-6),
    }  # fmt: skip
    theta = rope.get("rope_theta", said.get("rope_theta", 10000.0))
    return asked(config.model, blocks, {
        "num_codes": 1, "codebook_size": said["codebook_size"], "objective": "causal",
        "head": "factorised", "ordered": False, "rope_theta": float(theta), "positions": "line",
        "num_classes": said["num_classes"], "caption_width": 0, "zero_prefix_rotation": False,
    })  # fmt: skip


def _compare(run: Path, folder: Path, parity: Parity) -> None:
    torch = foreign("torch")
    load = foreign("transformers").AutoModelForCausalLM.from_pretrained
    config = ConfigDict(json.loads((Path(run) / "config.json").read_text()))
    model = decoder_task(config).model
    theirs = load(str(folder), dtype=torch.float32, local_files_only=True).eval()
    ours = ours_of(run, model, open_tensors(folder), {})
    rows, columns = grid_of(config)
    grid = (min(rows, -(-NUM_STEPS // columns)), columns)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, model.codebook_size, (2, *grid))
    told = {"classes": rng.integers(0, model.num_classes, 2).astype(np.int32)}
    first = torch.from_numpy(model.codebook_size + told["classes"].astype(np.int64))[:, None]
    ids = torch.cat([first, torch.from_numpy(codes.reshape(2, -1)[:, :-1])], dim=1)
    with torch.no_grad():
        logits = theirs(ids).logits[..., : model.codebook_size]
    parity.numbers("logits", ours.logits(codes, told), logits.numpy())
    nothing = torch.full_like(first, model.codebook_size + model.num_classes)
    count = min(codes[0].size, NUM_STEPS)
    for name, scale in SCALES.items():
        how = {"guidance_scale": scale, "negative_prompt_ids": nothing} if scale != 1 else {}
        length = {"min_new_tokens": count, "max_new_tokens": count, "do_sample": False}
        with torch.no_grad():
            made = theirs.generate(first, attention_mask=torch.ones_like(first), **length, **how)
        parity.ids(name, ours.greedy(told, grid, scale=scale)[:, :count], made[:, 1:].numpy())


DECODER = Family(
    library="transformers",
    table=_table,
    write_config=_write_config,
    read_config=_read_config,
    compare=_compare,
)
