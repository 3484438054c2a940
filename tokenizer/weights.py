"""Names of the convolutional tokenizer's arrays in diffusers' `VQModel` (0.42) and in LlamaGen's
`vq_model`, and what these say about its shape.

Both are VQGANs in other words: their tensors are ours with the axes turned. A name is (theirs,
ours, how), `how` as einops turns ours into theirs and "" for axes that stay.

Neither knows the codebook's `shift`, which is added before, nor the shares of its codes. LlamaGen
compares at length 1 as we do under `cosine`; diffusers compares what is there, which is the same
once all rows have length 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizer.backbones.config import BackboneConfig
from tokenizer.model import TokenizerConfig
from tokenizer.quantizers.menu import QuantizerConfig

Name = tuple[str, str, str]
KERNEL = "H W I O -> O I H W"
EMBEDDING = "quantize.embedding.weight"


@dataclasses.dataclass(frozen=True)
class Dialect:
    """What a library calls the parts of a VQGAN; `point` turns the kernels of its attention."""

    down_level: str
    up_level: str
    blocks: str
    attentions: str
    down: str
    up: str
    middle: tuple[str, str, str]
    norm: str
    shortcut: str
    attention: tuple[str, str, str, str, str]
    point: str


DIFFUSERS = Dialect(
    "down_blocks.{}", "up_blocks.{}", "resnets", "attentions", "downsamplers.0.conv",
    "upsamplers.0.conv", ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    "conv_norm_out", "conv_shortcut", ("group_norm", "to_q", "to_k", "to_v", "to_out.0"),
    "1 1 I O -> O I",
)  # fmt: skip
LLAMAGEN = Dialect(
    "conv_blocks.{}", "conv_blocks.{}", "res", "attn", "downsample.conv", "upsample.conv",
    ("mid.0", "mid.1", "mid.2"), "norm_out", "nin_shortcut", ("norm", "q", "k", "v", "proj_out"),
    KERNEL,
)  # fmt: skip


def codebook_name(config: QuantizerConfig) -> str:
    """Where a plain quantizer's code vectors are: learnt, or means of what they were chosen for."""
    gradient = config.codebook.learning == "gradient"
    return "params/quantizer/table" if gradient else "extra/quantizer/mean"


def names(config: TokenizerConfig, dialect: Dialect) -> list[Name]:
    """Every tensor of theirs, for a model that they can express."""
    found = [(EMBEDDING, codebook_name(config.quantizer), "")]
    found += _conv("quant_conv", "params/encoder/project")
    found += _conv("post_quant_conv", "params/decoder/project")
    for half, say in (("encoder", _encoder), ("decoder", _decoder)):
        parts = [*say(config.backbone, dialect), *_middle(config.backbone, dialect)]
        parts += [*_conv("conv_in", "stem"), *_conv("conv_out", "head")]
        parts += _norm(dialect.norm, "norm")
        found += [(f"{half}.{part}", f"params/{half}/{own}", how) for part, own, how in parts]
    return found


def _conv(theirs: str, ours: str, how: str = KERNEL) -> Iterator[Name]:
    yield f"{theirs}.weight", f"{ours}/kernel", how
    yield f"{theirs}.bias", f"{ours}/bias", ""


def _norm(theirs: str, ours: str) -> Iterator[Name]:
    yield f"{theirs}.weight", f"{ours}/scale", ""
    yield f"{theirs}.bias", f"{ours}/bias", ""


def _block(dialect: Dialect, theirs: str, ours: str, *, changes: bool) -> Iterator[Name]:
    for number, part in ((1, "in"), (2, "out")):
        yield from _norm(f"{theirs}.norm{number}", f"{ours}/norm_{part}")
        yield from _conv(f"{theirs}.conv{number}", f"{ours}/conv_{part}")
    if changes:
        yield from _conv(f"{theirs}.{dialect.shortcut}", f"{ours}/shortcut")


def _attention(dialect: Dialect, theirs: str, ours: str) -> Iterator[Name]:
    norm, *rest = dialect.attention
    yield from _norm(f"{theirs}.{norm}", f"{ours}/norm")
    for part, own in zip(rest, ("query", "key", "value", "out"), strict=True):
        yield from _conv(f"{theirs}.{part}", f"{ours}/{own}", dialect.point)


def _middle(config: BackboneConfig, dialect: Dialect) -> Iterator[Name]:
    before, attention, after = dialect.middle
    yield from _block(dialect, before, "middle/before", changes=False)
    yield from _block(dialect, after, "middle/after", changes=False)
    if config.conv.middle_attention:
        yield from _attention(dialect, attention, "middle/attention")


def _level(
    dialect: Dialect, place: tuple[str, str], num_blocks: int, *, changes: bool, attends: bool
) -> Iterator[Name]:
    theirs, ours = place
    for j in range(num_blocks):
        block = f"{theirs}.{dialect.blocks}.{j}"
        yield from _block(dialect, block, f"{ours}/blocks/{j}", changes=changes and not j)
        if attends:
            attention = f"{theirs}.{dialect.attentions}.{j}"
            yield from _attention(dialect, attention, f"{ours}/attentions/{j}")


def _encoder(config: BackboneConfig, dialect: Dialect) -> Iterator[Name]:
    widths = config.level_widths
    for i, width in enumerate(widths):
        place = dialect.down_level.format(i)
        changes, attends = width != widths[max(i - 1, 0)], config.conv.attends(i)
        yield from _level(
            dialect, (place, f"levels/{i}"), config.num_blocks, changes=changes, attends=attends
        )
        if i + 1 < len(widths):
            yield from _conv(f"{place}.{dialect.down}", f"downs/{i}")


def _decoder(config: BackboneConfig, dialect: Dialect) -> Iterator[Name]:
    widths = config.level_widths[::-1]
    for i, width in enumerate(widths):
        place = dialect.up_level.format(i)
        changes = width != widths[max(i - 1, 0)]
        attends = config.conv.attends(len(widths) - 1 - i)
        yield from _level(
            dialect, (place, f"levels/{i}"), config.num_blocks + 1, changes=changes, attends=attends
        )
        if i + 1 < len(widths):
            yield from _conv(f"{place}.{dialect.up}", f"ups/{i}")


def wanting_in_diffusers(config: TokenizerConfig) -> list[str]:
    """What of a tokenizer `VQModel` cannot express, each by name; nothing if it can."""
    found, quantizer = [], config.quantizer
    if config.backbone.name != "conv":
        found.append(f"the backbone {config.backbone.name} (only conv)")
    if quantizer.name != "vq":
        part = f" of {quantizer.kind}" if quantizer.kind != quantizer.name else ""
        several = f" with {quantizer.num_codes} codes a position" * (quantizer.num_codes > 1)
        found.append(f"the quantizer {quantizer.name}{part}{several} (only vq)")
    return found


def _attending(config: BackboneConfig) -> list[bool]:
    return [config.conv.attends(i) for i in range(len(config.conv.multipliers))]


def wanting_in_llamagen(config: TokenizerConfig) -> list[str]:
    """What of a tokenizer LlamaGen's `vq_model` cannot express, each by name: its sizes are fixed
    but for the multipliers, the latent and the codebook."""
    found, own = wanting_in_diffusers(config), config.backbone
    if own.name != "conv":
        return found
    fixed = {
        "backbone.width": (own.width, 128), "backbone.num_blocks": (own.num_blocks, 2),
        "backbone.channels": (own.channels, 3),
        "backbone.conv.num_groups": (own.conv.num_groups, 32),
        "backbone.conv.middle_attention": (own.conv.middle_attention, True),
    }  # fmt: skip
    found += [
        f"{name} {here} (only {must})" for name, (here, must) in fixed.items() if here != must
    ]
    if own.conv.multipliers[0] != 1:
        found.append(f"backbone.conv.multipliers {own.conv.multipliers} (only 1 at first)")
    if _attending(own) != [False] * (len(own.conv.multipliers) - 1) + [True]:
        levels = own.conv.attention_levels
        found.append(f"backbone.conv.attention_levels {levels} (only the lowest)")
    return found


def diffusers_config(config: TokenizerConfig) -> dict[str, Any]:
    """The config.json of `VQModel`, without `sample_size`.

    `lookup_from_codebook` lets it decode codes. `force_upcast` has pipelines run it in float32,
    for which it was compared.
    """
    own, codebook = config.backbone, config.quantizer.codebook
    kinds = ["Attn" * attends for attends in _attending(own)]
    return {
        "_class_name": "VQModel", "_diffusers_version": "0.42.1", "act_fn": "silu",
        "in_channels": own.channels, "out_channels": own.channels,
        "block_out_channels": list(own.level_widths), "layers_per_block": own.num_blocks,
        "down_block_types": [f"{kind}{DOWN}" for kind in kinds],
        "up_block_types": [f"{kind}{UP}" for kind in kinds[::-1]],
        "norm_num_groups": own.conv.num_groups, "norm_type": "group",
        "mid_block_add_attention": own.conv.middle_attention, "latent_channels": own.conv.latent,
        "vq_embed_dim": codebook.width, "num_vq_embeddings": codebook.size,
        "lookup_from_codebook": True, "force_upcast": True,
    }  # fmt: skip


DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
BLOCK_TYPES = (DOWN, f"Attn{DOWN}", UP, f"Attn{UP}")
VQMODEL: Mapping[str, Any] = {  # what a config.json that says less means
    "in_channels": 3, "out_channels": 3, "down_block_types": [DOWN], "up_block_types": [UP],
    "block_out_channels": [64], "layers_per_block": 1, "act_fn": "silu", "latent_channels": 3,
    "num_vq_embeddings": 256, "norm_num_groups": 32, "vq_embed_dim": None, "norm_type": "group",
    "mid_block_add_attention": True,
}  # fmt: skip


def strange_in_diffusers(said: Mapping[str, Any]) -> list[str]:
    """What a config.json of diffusers asks for that this tokenizer has not, each by name."""
    said = {"_class_name": "VQModel", **VQMODEL, **said}
    known = {
        "_class_name": ("VQModel",), "act_fn": ("silu", "swish"), "norm_type": ("group",),
        "in_channels": (said["out_channels"],),
    }  # fmt: skip
    found = [
        f"{key} {said[key]!r} (only {' or '.join(map(str, values))})"
        for key, values in known.items()
        if said[key] not in values
    ]
    down, up, num_levels = said["down_block_types"], said["up_block_types"], _num_levels(said)
    if odd := sorted({*down, *up} - set(BLOCK_TYPES)):
        found.append(f"blocks of the type {', '.join(odd)} (only {', '.join(BLOCK_TYPES)})")
    elif not len(down) == len(up) == num_levels:
        found.append(f"{len(down)} down and {len(up)} up blocks for {num_levels} widths")
    elif [kind[:4] == "Attn" for kind in down] != [kind[:4] == "Attn" for kind in up[::-1]]:
        found.append(
            f"down_block_types {down} and up_block_types {up}, of which the attention is not "
            "mirrored (only in the same levels on both ways)"
        )
    if num_levels not in (3, 4, 5):
        found.append(f"{num_levels} levels (only 3 to 5: a page 4, 8 or 16 times smaller)")
    return found


def _num_levels(said: Mapping[str, Any]) -> int:
    return len(said["block_out_channels"])


def _shape(widths: tuple[int, ...], attending: list[bool], ours: BackboneConfig) -> dict[str, Any]:
    """Widths and attention of the levels, spelt as ours does where that means the same."""
    same = ours.name == "conv" and ours.level_widths == widths
    width = ours.width if same else widths[0]
    width = width if not any(w % width for w in widths) else math.gcd(*widths)
    attention = tuple(i for i, attends in enumerate(attending) if attends)
    if attention == (len(widths) - 1,):
        attention = (-1,)
    if len(ours.conv.multipliers) == len(widths) and _attending(ours) == attending:
        attention = ours.conv.attention_levels
    conv = {"multipliers": tuple(w // width for w in widths), "attention_levels": attention}
    return {
        "name": "conv", "downsampling": 2 ** (len(widths) - 1), "width": width, "conv": conv,
    }  # fmt: skip


def from_diffusers(said: Mapping[str, Any], ours: TokenizerConfig) -> dict[str, Any]:
    """Settings of our config.model for a config.json of diffusers in which nothing is strange;
    whether the codebook is cosine it does not say."""
    said = {**VQMODEL, **said}
    attending = [kind.startswith("Attn") for kind in said["down_block_types"]]
    backbone = _shape(tuple(said["block_out_channels"]), attending, ours.backbone)
    backbone |= {"num_blocks": said["layers_per_block"], "channels": said["in_channels"]}
    latent, width = said["latent_channels"], said["vq_embed_dim"]
    backbone["conv"] |= {
        "middle_attention": said["mid_block_add_attention"], "latent": latent,
        "num_groups": said["norm_num_groups"],
    }  # fmt: skip
    codebook = {"size": said["num_vq_embeddings"], "width": latent if width is None else width}
    quantizer = {"name": "vq", "num_codes": 1, "codebook": codebook}
    return {"backbone": backbone, "quantizer": quantizer}


def llamagen_config(config: TokenizerConfig) -> dict[str, Any]:
    """LlamaGen's `ModelArgs`, field by field."""
    codebook, multipliers = config.quantizer.codebook, list(config.backbone.conv.multipliers)
    return {
        "codebook_size": codebook.size, "codebook_embed_dim": codebook.width,
        "codebook_l2_norm": codebook.cosine, "codebook_show_usage": True,
        "commit_loss_beta": codebook.commitment, "entropy_loss_ratio": 0.0,
        "encoder_ch_mult": multipliers, "decoder_ch_mult": multipliers,
        "z_channels": config.backbone.conv.latent, "dropout_p": 0.0,
    }  # fmt: skip


def from_llamagen(
    shapes: Mapping[str, tuple[int, ...]], said: Mapping[str, Any], ours: TokenizerConfig
) -> dict[str, Any]:
    """Settings of our config.model for the tensors of LlamaGen, whose shapes say everything but
    whether codes are compared at length 1: as `ModelArgs` says, if it is there, or by default.

    Raises `KeyError` for a tensor that every such model has.
    """
    widths: list[int] = []
    while (name := f"encoder.conv_blocks.{len(widths)}.res.0.conv1.weight") in shapes:
        widths.append(shapes[name][0])
    size, width = shapes[EMBEDDING]
    attending = [f"encoder.conv_blocks.{i}.attn.0.q.weight" in shapes for i in range(len(widths))]
    backbone = _shape(tuple(widths), attending, ours.backbone)
    backbone |= {"num_blocks": 2, "channels": shapes["encoder.conv_in.weight"][1]}
    backbone["conv"] |= {
        "middle_attention": True, "latent": shapes["quant_conv.weight"][1], "num_groups": 32,
    }  # fmt: skip
    codebook = {"size": size, "width": width, "cosine": said.get("codebook_l2_norm", True)}
    return {"backbone": backbone, "quantizer": {"name": "vq", "num_codes": 1, "codebook": codebook}}
