"""The arguments of LlamaGen's GPT, which has no config file, and the tensors that they ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class ModelArgs:
    """LlamaGen's `ModelArgs`, those that the weights' meaning depends on."""

    dim: int
    n_layer: int
    n_head: int
    n_kv_head: int | None = None
    multiple_of: int = 256
    ffn_dim_multiplier: float | None = None
    rope_base: float = 10000
    norm_eps: float = 1e-5
    num_classes: int = 1000
    caption_dim: int = 2048
    class_dropout_prob: float = 0.1
    model_type: str = "c2i"
    vocab_size: int = 16384
    cls_token_num: int = 1
    block_size: int = 256

    @property
    def hidden(self) -> int:
        """The width of a SwiGLU: 8/3 of `dim`, times the multiplier, up to a multiple."""
        size = 8 * self.dim // 3
        if self.ffn_dim_multiplier is not None:
            size = int(self.ffn_dim_multiplier * size)
        return -(-size // self.multiple_of) * self.multiple_of


def shapes(args: ModelArgs) -> dict[str, tuple[int, ...]]:
    """Every tensor of a GPT's state dict."""
    d, hidden = args.dim, args.hidden
    kv = args.n_head if args.n_kv_head is None else args.n_kv_head
    rows = (args.n_head + 2 * kv) * (d // args.n_head)
    found: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (args.vocab_size, d), "norm.weight": (d,),
        "output.weight": (args.vocab_size, d),
    }  # fmt: skip
    if args.model_type == "c2i":
        unconditional = int(args.class_dropout_prob > 0)
        found["cls_embedding.embedding_table.weight"] = (args.num_classes + unconditional, d)
    else:
        found["cls_embedding.cap_proj.fc1.weight"] = (d, args.caption_dim)
        found["cls_embedding.cap_proj.fc2.weight"] = (d, d)
        found["cls_embedding.uncond_embedding"] = (120, args.caption_dim)
    for i in range(args.n_layer):
        found |= {
            f"layers.{i}.attention.wqkv.weight": (rows, d),
            f"layers.{i}.attention.wo.weight": (d, d),
            f"layers.{i}.feed_forward.w1.weight": (hidden, d),
            f"layers.{i}.feed_forward.w3.weight": (hidden, d),
            f"layers.{i}.feed_forward.w2.weight": (d, hidden),
            f"layers.{i}.attention_norm.weight": (d,),
            f"layers.{i}.ffn_norm.weight": (d,),
        }
    return found


HEADS = {768: 12, 1024: 16, 1280: 20, 1536: 24, 2048: 32, 2560: 40, 3200: 32, 4096: 32}
"""Heads of the published GPTs (B, L, XL, XXL, 1B, XXXL, 3B, 7B) by their width: their weights do
not say it."""


def swiglu(width: int, hidden: int) -> dict[str, Any]:
    """The arguments that make a SwiGLU's hidden width of the model's."""
    if ModelArgs(width, 1, 1).hidden == hidden:
        return {}
    return {"multiple_of": 1, "ffn_dim_multiplier": (hidden + 0.5) / (8 * width // 3)}


def args_of_shapes(
    found: Mapping[str, tuple[int, ...]], *, num_heads: int, block_size: int
) -> ModelArgs:
    """The arguments of a GPT by the shapes of its tensors alone, with LlamaGen's defaults where
    they do not say (the base of rotations, what norms add); heads by the width as published, else
    `num_heads`.

    Raises `KeyError` naming a tensor that is needed and missing.
    """
    vocab, width = found["tok_embeddings.weight"]
    heads = HEADS.get(width, num_heads)
    rows = found["layers.0.attention.wqkv.weight"][0]
    kv = (rows * heads // width - heads) // 2
    layers = {name.split(".")[1] for name in found if name.startswith("layers.")}
    told: dict[str, Any] = {"model_type": "t2i", "cls_token_num": 120}
    if "cls_embedding.embedding_table.weight" in found:
        told = {"num_classes": found["cls_embedding.embedding_table.weight"][0] - 1}
    else:
        told["caption_dim"] = found["cls_embedding.uncond_embedding"][1]
    return ModelArgs(
        width, len(layers), heads, None if kv == heads else kv, vocab_size=vocab,
        block_size=block_size, **told, **swiglu(width, found["layers.0.feed_forward.w1.weight"][0]),
    )  # fmt: skip
