"""The decoder as LlamaGen's GPT and back: `config.json` with the names of its `ModelArgs`, and its
tensors in safetensors.

    from autoregressive.models.gpt import ModelArgs, Transformer  # LlamaGen's
    model = Transformer(ModelArgs(**json.load(open("OUT/config.json")))).eval()
    model.load_state_dict(safetensors.torch.load_file("OUT/model.safetensors"))

Its own scripts take a file of `torch.save`, which `torch_files.add_torch(OUT)` writes beside.

Decoders of classes and of captions go both ways. One of blueprints has what LlamaGen has no place
for, so it only comes: with LlamaGen's trunk, codes in and codes out, and the rest fresh.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from decoder import weights
from decoder.config import DecoderConfig
from decoder.task import DecoderTask
from pipeline.export.decoder_parity import NUM_STEPS, SCALES, ours_of
from pipeline.export.decoder_settings import asked, grid_of, refuse
from pipeline.export.family import Family
from pipeline.export.llamagen_args import ModelArgs, args_of_shapes, swiglu
from pipeline.export.torch_files import foreign, open_any
from pipeline.tasks import decoder_task
from train.config import build
from train.export import ExportError, FormatError, Parity, Row, Stored, Table
from train.export.folder import model_arrays

_COMPARED = 256  # codes whose logits are compared


def table_of(model: DecoderConfig) -> Table:
    """The names of a decoder's arrays, of one of blueprints those that LlamaGen has too."""
    left = weights.OF_BLUEPRINTS if model.has_blueprint else ()
    unused = weights.LLAMAGEN_UNUSED + (("cls_embedding.*",) if model.has_blueprint else ())
    return Table(tuple(Row(*row) for row in weights.llamagen_rows(model)), left, unused)


def _table(config: ConfigDict) -> Table:
    model = build(DecoderConfig, config, path="config.model")
    problems = weights.not_of_llamagen(model)
    if model.has_blueprint:
        parts = sorted({name.split("/")[1] for name in weights.OF_BLUEPRINTS})
        problems.append(f"blueprint ({', '.join(parts)})")
    refuse("LlamaGen's GPT", problems)
    return table_of(model)


def _table_in(folder: Path, config: ConfigDict) -> Table:
    return table_of(build(DecoderConfig, config, path="config.model"))


def args_of(config: ConfigDict) -> ModelArgs:
    """LlamaGen's arguments for a decoder's config; raises `ExportError` for pages that are not
    square, which it does not have."""
    task, (rows, columns) = decoder_task(config), grid_of(config)
    if rows != columns:
        raise ExportError(
            f"LlamaGen's GPT has square pages only and config.data.page makes {rows} x {columns} "
            "codes: take --format bundle"
        )
    model, blocks = task.model, task.model.blocks
    told: dict[str, Any] = {"num_classes": model.num_classes}
    if model.caption_width:
        told = {
            "model_type": "t2i", "cls_token_num": model.num_caption_tokens,
            "caption_dim": model.caption_width,
        }  # fmt: skip
    kv = None if blocks.num_kv_heads == blocks.num_heads else blocks.num_kv_heads
    return ModelArgs(
        blocks.width, blocks.num_layers, blocks.num_heads, kv, rope_base=model.rope_theta,
        norm_eps=blocks.norm_eps, vocab_size=model.codebook_size, block_size=rows * columns,
        # without a share it would have no row for what is not told
        class_dropout_prob=task.drop_blueprint or 0.1,
        **told, **swiglu(blocks.width, blocks.hidden),
    )  # fmt: skip


def _write_config(config: ConfigDict, folder: Path) -> None:
    said = dataclasses.asdict(args_of(config))
    (folder / "config.json").write_text(json.dumps(said, indent=1) + "\n")


def read_args(source: Path, config: ConfigDict) -> ModelArgs:
    """The arguments of a folder's `config.json`, or by the shapes of published weights; what
    neither says (heads of a width that was not published, the page) is taken from `config`.

    Raises `ExportError` for weights that are no GPT of LlamaGen's, `FormatError` for a damaged
    `config.json`.
    """
    path = Path(source) / "config.json"
    if path.is_file():
        known = {field.name for field in dataclasses.fields(ModelArgs)}
        try:
            said = json.loads(path.read_text())
            return ModelArgs(**{name: value for name, value in said.items() if name in known})
        except (ValueError, TypeError, AttributeError) as problem:
            raise FormatError(f"{path} has no arguments of LlamaGen's GPT ({problem})") from problem
    shapes = {name: tuple(tensor.shape) for name, tensor in open_any(source).items()}
    heads = build(DecoderConfig, config.model, path="config.model").blocks.num_heads
    rows, columns = grid_of(config)
    size = rows * columns if rows == columns else ModelArgs.block_size
    try:
        return args_of_shapes(shapes, num_heads=heads, block_size=size)
    except KeyError as problem:
        raise ExportError(
            f"{source} is no GPT of LlamaGen's: it has no {problem.args[0]}"
        ) from problem


def _read_config(source: Path, config: ConfigDict) -> ConfigDict:
    args = read_args(source, config)
    if args.model_type == "c2i" and not args.class_dropout_prob:
        raise ExportError(
            f"{source} was trained without class_dropout_prob, so that its table has no row for "
            "what is not told, which our decoder has"
        )
    model = build(DecoderConfig, config.model, path="config.model")
    told: dict[str, Any] = {}
    if not model.has_blueprint:
        text = args.model_type == "t2i"
        told = {
            "num_classes": 0 if text else args.num_classes, "zero_prefix_rotation": True,
            "caption_width": args.caption_dim if text else 0,
        } | ({"num_caption_tokens": weights.CAPTION_TOKENS} if text else {})  # fmt: skip
    return asked(config.model, blocks_of(args), {
        "num_codes": 1, "codebook_size": args.vocab_size, "objective": "causal",
        "head": "factorised", "ordered": False, "rope_theta": float(args.rope_base),
        "positions": "grid", **told,
    })  # fmt: skip


def blocks_of(args: ModelArgs) -> dict[str, Any]:
    """The sizes of our blocks that these arguments ask for."""
    return {
        "width": args.dim, "num_layers": args.n_layer, "num_heads": args.n_head,
        "num_kv_heads": args.n_kv_head or args.n_head, "head_size": args.dim // args.n_head,
        "hidden": args.hidden, "qk_norm": False, "norm_eps": args.norm_eps,
    }  # fmt: skip


def _prefixed(model: DecoderConfig, args: ModelArgs) -> DecoderConfig:
    """The decoder of classes or captions whose trunk, codes in and out a decoder of blueprints has
    from LlamaGen; itself if it is one."""
    if not model.has_blueprint:
        return model
    if args.model_type == "t2i":
        told: dict[str, Any] = {"caption_width": args.caption_dim}
    else:
        told = {"num_classes": args.num_classes}
    return dataclasses.replace(model, zero_prefix_rotation=True, **told)


def _brought(theirs: Mapping[str, Stored], model: DecoderConfig) -> dict[str, np.ndarray]:
    """Our arrays of class or caption, from theirs."""
    shapes = model_arrays(DecoderTask(model))
    pieces = table_of(model).pieces(shapes)
    own = [piece for piece in pieces if piece.theirs.startswith("cls_embedding.")]
    return {
        piece.what.ours: piece.inwards(np.asarray(theirs[piece.theirs][...])).astype(np.float32)
        for piece in own
    }


def draw(args: ModelArgs, grid: tuple[int, int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Codes [2 y x] and what is told of two pages, at random by a fixed seed: a short caption and
    one that fills its places."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, args.vocab_size, (2, *grid))
    if args.model_type == "c2i":
        return codes, {"classes": rng.integers(0, args.num_classes, 2).astype(np.int32)}
    features = rng.normal(size=(2, args.cls_token_num, args.caption_dim)).astype(np.float32)
    there = np.array([args.cls_token_num // 5 + 1, args.cls_token_num], np.int32)
    told = {"captions": features, "caption_tokens": there, "captioned": np.ones(2, bool)}
    return codes, told


def _compare(run: Path, folder: Path, parity: Parity) -> None:
    torch = foreign("torch")
    from pipeline.export.llamagen_gpt import Reference

    config = ConfigDict(json.loads((Path(run) / "config.json").read_text()))
    args, theirs = read_args(folder, config), open_any(folder)
    model = _prefixed(decoder_task(config).model, args)
    ours = ours_of(run, model, theirs, _brought(theirs, model))
    reference = Reference(
        args, {n: torch.from_numpy(np.float32(x[...])) for n, x in theirs.items()}
    )
    side = round(args.block_size**0.5)
    grid = (min(side, -(-_COMPARED // side)), side)
    codes, told = draw(args, grid)
    condition, there = torch.from_numpy(told.get("captions", told.get("classes"))), None
    if args.model_type == "t2i":
        places = torch.arange(args.cls_token_num)
        there = places >= args.cls_token_num - torch.from_numpy(told["caption_tokens"])[:, None]
    flat = torch.from_numpy(codes.reshape(2, -1))
    expected = reference.logits(flat[:, :-1], condition, there)
    parity.numbers("logits", ours.logits(codes, told), expected.numpy())
    grid = (min(side, -(-NUM_STEPS // side)), side)
    for name, scale in SCALES.items():
        found = ours.greedy(told, grid, scale=scale)[:, :NUM_STEPS]
        expected = reference.greedy(condition, there, found.shape[1], cfg_scale=scale)
        parity.ids(name, found, expected.numpy())


DECODER = Family(
    library="LlamaGen (our reference of its GPT)",
    table=_table,
    write_config=_write_config,
    read_config=_read_config,
    compare=_compare,
    opened=open_any,
    table_in=_table_in,
)
