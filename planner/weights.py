"""A planner in the names of Hugging Face's `LlamaForCausalLM` and, with a norm of queries and keys,
`Qwen3ForCausalLM`: which tensor is which array, and what `config.json` says.

Their rotary pairs are half-split as ours, so that no row of a projection moves. Nothing here needs
their library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from blueprint import vocab
from layers.block import BlockConfig
from layers.rope import RopeScaling
from planner.model import PlannerConfig

Name = tuple[str, str, str]
"""Theirs (`{}` is a layer), ours, and how einops writes the way from ours to theirs."""

EMBED: Name = ("model.embed_tokens.weight", "params/embed/table", "")
PROMPT_EMBED: Name = ("model.embed_tokens.weight", "params/prompt_embed/table", "")
HEAD: Name = ("lm_head.weight", "params/head/kernel", "D V -> V D")

_OF_LAYER = {
    "input_layernorm": ("attention_norm/scale", ""),
    "self_attn.q_proj": ("attention/query/kernel", "D N H -> (N H) D"),
    "self_attn.k_proj": ("attention/key/kernel", "D K H -> (K H) D"),
    "self_attn.v_proj": ("attention/value/kernel", "D K H -> (K H) D"),
    "self_attn.o_proj": ("attention/out/kernel", "N H D -> D (N H)"),
    "post_attention_layernorm": ("mlp_norm/scale", ""),
    "mlp.gate_proj": ("mlp/gate/kernel", "D F -> F D"),
    "mlp.up_proj": ("mlp/up/kernel", "D F -> F D"),
    "mlp.down_proj": ("mlp/down/kernel", "F D -> D F"),
}
_QK_NORM = {
    "self_attn.q_norm": ("attention/query_norm/scale", ""),
    "self_attn.k_norm": ("attention/key_norm/scale", ""),
}

MARK = "letterpress"
"""The key of `config.json` under which we say what theirs has no word for."""

_NEEDED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
)  # fmt: skip
_LONGEST = {"llama": 2048, "qwen3": 32768}  # max_position_embeddings where a config is silent
_ROPE_TYPES = ("default", "llama3")


def trunk(config: PlannerConfig) -> list[Name]:
    """All names but those of the tables of ids."""
    of_layer = {**_OF_LAYER, **(_QK_NORM if config.blocks.qk_norm else {})}
    rows = [
        (f"model.layers.{{}}.{theirs}.weight", f"params/blocks/layer/{ours}", how)
        for theirs, (ours, how) in of_layer.items()
    ]
    return [*rows, ("model.norm.weight", "params/norm/scale", "")]


def not_theirs(config: PlannerConfig) -> list[str]:
    """What their config cannot say of ours, one line each."""
    blocks = config.blocks
    if not blocks.qk_norm and blocks.width % blocks.num_heads:
        return [
            f"LlamaForCausalLM takes no width {blocks.width} that num_heads {blocks.num_heads} "
            "does not divide"
        ]
    return []


def their_config(config: PlannerConfig) -> dict[str, Any]:
    """`config.json`. Rotary settings are there twice, as releases before 5 of their library (and
    other readers) and as those since then have them."""
    blocks, scaling = config.blocks, config.rope_scaling
    kind = "qwen3" if blocks.qk_norm else "llama"
    rope: dict[str, Any] = {"rope_type": "default"}
    if scaling.factor != 1:
        rope = {
            "rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_turns,
            "high_freq_factor": scaling.high_turns,
            "original_max_position_embeddings": scaling.original_length,
        }  # fmt: skip
    grown = config.prompt_vocab_size
    found = {
        "architectures": [{"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}[kind]],
        "model_type": kind,
        "vocab_size": config.vocab_size + grown,
        "hidden_size": blocks.width,
        "intermediate_size": blocks.hidden,
        "num_hidden_layers": blocks.num_layers,
        "num_attention_heads": blocks.num_heads,
        "num_key_value_heads": blocks.num_kv_heads,
        "head_dim": blocks.head_size,
        "hidden_act": "silu",
        "rms_norm_eps": blocks.norm_eps,
        "max_position_embeddings": config.max_length,
        "tie_word_embeddings": config.tie_embeddings and not grown,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope if scaling.factor != 1 else None,
        "rope_parameters": {"rope_theta": config.rope_theta, **rope},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        **_special_ids(),
    }
    found |= {"mlp_bias": False} if kind == "llama" else {"use_sliding_window": False}
    return found | ({MARK: {"prompt_vocab_size": grown}} if grown else {})


def _special_ids() -> dict[str, int]:
    names = {"bos": "prompt", "eos": "end", "pad": "pad"}
    return {f"{theirs}_token_id": vocab.token(ours) for theirs, ours in names.items()}


def their_generation_config(config: PlannerConfig) -> dict[str, Any]:
    """`generation_config.json`: greedy until `<end>`, and never an id that only prompts have."""
    found = {**_special_ids(), "do_sample": False, "max_length": config.max_length}
    grown = config.prompt_vocab_size
    first = config.vocab_size
    return found | ({"suppress_tokens": list(range(first, first + grown))} if grown else {})


def not_ours(theirs: Mapping[str, Any]) -> list[str]:
    """What a `config.json` of theirs asks for and our planner does not have, one line each."""
    kind, named = theirs.get("model_type"), theirs.get("architectures") or []
    if kind not in _LONGEST:
        return [f"model_type is {kind!r}, not {' or '.join(map(repr, _LONGEST))}"]
    problems = [f"{name} is missing" for name in _NEEDED if not theirs.get(name)]
    problems += [f"it is a {name}" for name in named if not name.endswith("ForCausalLM")]
    for name in ("attention_bias", "mlp_bias", "quantization_config", "per_layer_config"):
        if theirs.get(name):
            problems.append(f"{name} is set, and our layers have none")
    if (act := theirs.get("hidden_act", "silu")) not in ("silu", "swish"):
        problems.append(f"hidden_act is {act!r}, and ours is silu")
    windows = theirs.get("use_sliding_window") and theirs.get("sliding_window", 4096)
    others = {*(theirs.get("layer_types") or ())} - {"full_attention"}
    if windows or others:
        problems.append("some layers attend in a sliding window, and ours to all that is before")
    return problems + _odd_rope(theirs)


def _odd_rope(theirs: Mapping[str, Any]) -> list[str]:
    rope = _rope(theirs)
    kind, problems = rope["rope_type"], []
    if any(isinstance(value, Mapping) for value in rope.values()):
        return ["rope_parameters differ from layer to layer"]
    if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
        problems.append(f"partial_rotary_factor is {rope['partial_rotary_factor']}, and ours is 1")
    if kind not in _ROPE_TYPES:
        problems.append(f"rope_type is {kind!r}, not {' or '.join(map(repr, _ROPE_TYPES))}")
    if kind == "llama3":
        needed = ("factor", "low_freq_factor", "high_freq_factor")
        problems += [f"rope_type llama3 has no {name}" for name in needed if not rope.get(name)]
    return problems


def _rope(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary settings, wherever a release of their library puts them."""
    rope = dict(theirs.get("rope_scaling") or theirs.get("rope_parameters") or {})
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    for name in ("rope_theta", "partial_rotary_factor"):
        rope.setdefault(name, theirs.get(name))
    length = "original_max_position_embeddings"
    rope[length] = theirs.get(length) or rope.get(length) or _longest(theirs)
    return rope


def _longest(theirs: Mapping[str, Any]) -> int:
    return theirs.get("max_position_embeddings") or _LONGEST[theirs["model_type"]]


def our_config(theirs: Mapping[str, Any], ours: PlannerConfig) -> PlannerConfig:
    """Our config for a `config.json` in which `not_ours` finds nothing.

    How long a text may be is ours, up to what theirs learnt, and so are the trunk's dtype and
    `remat`. With prompt ids of ours its vocabulary is that of prompts, which says nothing of our
    own ids and of their head, unless it is one that we wrote (see `MARK`).
    """
    heads, width = theirs["num_attention_heads"], theirs["hidden_size"]
    qwen = theirs["model_type"] == "qwen3"
    blocks = BlockConfig(
        width=width, num_layers=theirs["num_hidden_layers"], num_heads=heads,
        num_kv_heads=theirs.get("num_key_value_heads", 32 if qwen else heads) or heads,
        head_size=theirs.get("head_dim", 128 if qwen else 0) or width // heads,
        hidden=theirs["intermediate_size"], qk_norm=qwen, dtype=ours.blocks.dtype,
        norm_eps=theirs.get("rms_norm_eps", 1e-6),
    )  # fmt: skip
    rope = _rope(theirs)
    scaling = ours.rope_scaling if ours.rope_scaling.factor == 1 else RopeScaling()
    if rope["rope_type"] == "llama3":
        scaling = RopeScaling(
            float(rope["factor"]), float(rope["low_freq_factor"]), float(rope["high_freq_factor"]),
            rope["original_max_position_embeddings"],
        )  # fmt: skip
    found = dataclasses.replace(
        ours, blocks=blocks, max_length=min(ours.max_length, _longest(theirs)),
        rope_theta=float(rope["rope_theta"] or 10000.0), rope_scaling=scaling,
    )  # fmt: skip
    total, tied = theirs["vocab_size"], bool(theirs.get("tie_word_embeddings", False))
    if grown := (theirs.get(MARK) or {}).get("prompt_vocab_size", 0):
        return dataclasses.replace(found, vocab_size=total - grown, prompt_vocab_size=grown)
    if ours.prompt_vocab_size:
        return dataclasses.replace(found, prompt_vocab_size=total)
    return dataclasses.replace(found, vocab_size=total, tie_embeddings=tied)
