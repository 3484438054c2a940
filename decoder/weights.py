"""Name tables of the decoder: which of its arrays is which tensor of LlamaGen's GPT (Sun et al.
2024) or of a Llama, and what of a config neither has a place for.

A row is (theirs, ours, how, sizes), as `train.export.Row` takes them.

LlamaGen turns neighbours (2p, 2p + 1) of a head by angle p, of which the first half are the row's
and the second the column's. Ours are (p, p + H/2) with the same order of angles, so that only the
two halves of a head are dealt out like cards: (s p) -> (p s) of queries and keys. Llama has pairs
as we have. The scores do not change, nor do values, which are not turned.
"""

from __future__ import annotations

from collections.abc import Mapping

from decoder.config import DecoderConfig

Rows = tuple[tuple[str, str, str, Mapping[str, int]], ...]

CAPTION_TOKENS = 120
"""How many places LlamaGen's learnt caption has, whatever it is told."""

OF_BLUEPRINTS = tuple(
    f"params/{name}"
    for name in (
        "mask_vector", "regions_in/*", "glyphs_in/*", "copies_in/*", "copy_gate/*", "copy_bias",
        "letters_in/*", "styles_in/*", "mixed_norm/*", "mix_up/*", "mix_down/*",
    )
)  # fmt: skip
"""What tells a decoder its blueprint: fresh where it starts from another library's weights."""

_PAIRS = {"s": 2}
_BLOCK = "params/blocks/layer"


def _layers(names: Mapping[str, str], pairs: str) -> Rows:
    """The blocks; `names` are theirs of our parts, `pairs` how they have those of a head."""
    parts = {
        "query": ("attention/query/kernel", f"D N (s p) -> (N {pairs}) D", _PAIRS),
        "key": ("attention/key/kernel", f"D K (s p) -> (K {pairs}) D", _PAIRS),
        "value": ("attention/value/kernel", "D K H -> (K H) D", {}),
        "out": ("attention/out/kernel", "N H D -> D (N H)", {}),
        "gate": ("mlp/gate/kernel", "D F -> F D", {}),
        "up": ("mlp/up/kernel", "D F -> F D", {}),
        "down": ("mlp/down/kernel", "F D -> D F", {}),
        "attention_norm": ("attention_norm/scale", "", {}),
        "mlp_norm": ("mlp_norm/scale", "", {}),
    }
    return tuple((names[p], f"{_BLOCK}/{ours}", how, n) for p, (ours, how, n) in parts.items())


_LLAMAGEN = {
    "query": "layers.{}.attention.wqkv.weight", "key": "layers.{}.attention.wqkv.weight",
    "value": "layers.{}.attention.wqkv.weight", "out": "layers.{}.attention.wo.weight",
    "gate": "layers.{}.feed_forward.w1.weight", "up": "layers.{}.feed_forward.w3.weight",
    "down": "layers.{}.feed_forward.w2.weight",
    "attention_norm": "layers.{}.attention_norm.weight", "mlp_norm": "layers.{}.ffn_norm.weight",
}  # fmt: skip
_LLAMA = {
    "query": "model.layers.{}.self_attn.q_proj.weight",
    "key": "model.layers.{}.self_attn.k_proj.weight",
    "value": "model.layers.{}.self_attn.v_proj.weight",
    "out": "model.layers.{}.self_attn.o_proj.weight",
    "gate": "model.layers.{}.mlp.gate_proj.weight", "up": "model.layers.{}.mlp.up_proj.weight",
    "down": "model.layers.{}.mlp.down_proj.weight",
    "attention_norm": "model.layers.{}.input_layernorm.weight",
    "mlp_norm": "model.layers.{}.post_attention_layernorm.weight",
}  # fmt: skip

LLAMAGEN_UNUSED = ("freqs_cis", "causal_mask", "layers.*.attention.kv_cache.*")
"""Tensors of a GPT that was saved after it printed."""


def llamagen_rows(config: DecoderConfig) -> Rows:
    """LlamaGen's GPT: of a decoder of blueprints the trunk, codes in and out."""
    rows: Rows = ()
    if config.num_classes:
        rows = (("cls_embedding.embedding_table.weight", "params/classes_in/table", "", {}),)
    if config.caption_width:
        rows = (
            ("cls_embedding.cap_proj.fc1.weight", "params/captions_in/up/kernel", "I F -> F I", {}),
            ("cls_embedding.cap_proj.fc2.weight", "params/captions_in/down/kernel",
             "F D -> D F", {}),
            ("cls_embedding.uncond_embedding", "params/captions_in/nothing", "", {}),
        )  # fmt: skip
    return (
        *rows,
        ("tok_embeddings.weight", "params/codes_in/kernel", "Q V D -> (Q V) D", {"Q": 1}),
        *_layers(_LLAMAGEN, "p s"),
        ("norm.weight", "params/norm/scale", "", {}),
        ("output.weight", "params/head/kernel", "D Q V -> (Q V) D", {"Q": 1}),
    )


def llama_rows() -> Rows:
    """A Llama whose ids are the codes, then the classes."""
    return (
        ("model.embed_tokens.weight", "params/codes_in/kernel", "Q V D -> (Q V) D", {"Q": 1}),
        ("model.embed_tokens.weight", "params/classes_in/table", "", {}),
        *_layers(_LLAMA, "s p"),
        ("model.norm.weight", "params/norm/scale", "", {}),
        ("lm_head.weight", "params/head/kernel", "D Q V -> (Q V) D", {"Q": 1}),
    )


def _of_both(config: DecoderConfig) -> list[str]:
    """What of a config both lack: it would have to be otherwise."""
    wanted = (
        (config.causal, f"objective {config.objective!r} (set 'causal')"),
        (config.num_codes == 1, f"num_codes {config.num_codes} (they have one a position)"),
        (config.head == "factorised", f"head {config.head!r} (set 'factorised')"),
        (not config.ordered, "ordered (its head of levels)"),
    )
    return [said for fits, said in wanted if not fits]


def not_of_llamagen(config: DecoderConfig) -> list[str]:
    """What of a config LlamaGen's GPT has no place for, but for a blueprint."""
    blocks, prefixed = config.blocks, not config.has_blueprint
    places = config.num_caption_tokens if config.caption_width else CAPTION_TOKENS
    wanted = (
        (not blocks.qk_norm, "blocks.qk_norm"),
        (blocks.num_heads * blocks.head_size == blocks.width,
         f"blocks.head_size {blocks.head_size} (its is width / num_heads)"),
        (config.positions == "grid", f"positions {config.positions!r} (set 'grid')"),
        (places == CAPTION_TOKENS, f"num_caption_tokens {places} (it has {CAPTION_TOKENS})"),
        (config.zero_prefix_rotation or not prefixed,
         "zero_prefix_rotation False (it turns its prefix to zeros; set it True)"),
    )  # fmt: skip
    return _of_both(config) + [said for fits, said in wanted if not fits]


def not_of_llama(config: DecoderConfig) -> list[str]:
    """What of a config a Llama has no place for."""
    wanted = (
        (not config.has_blueprint, "the blueprint (regions, glyphs and letters are no ids)"),
        (not config.caption_width, "caption_width (features are no ids)"),
        (config.positions == "line",
         "positions 'grid' (rows and columns; it counts ids one by one: train with 'line')"),
        (not config.zero_prefix_rotation, "zero_prefix_rotation"),
        (not config.blocks.qk_norm, "blocks.qk_norm"),
    )  # fmt: skip
    return _of_both(config) + [said for fits, said in wanted if not fits]
