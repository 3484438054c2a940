"""The convolutional backbone of VQGAN (Esser et al. 2021, tables 7 and 8).

Levels of residual blocks, each level at half the resolution of the one before, attention over all
positions at the lowest, and a middle of block, attention, block. GroupNorm and swish throughout.

These configs have the parameters of published models, one for one (code width in brackets):

    LlamaGen VQ-16 [8], taming f16 [256]   f 16, width 128, multipliers (1, 1, 2, 2, 4)
    LlamaGen VQ-8 [8]                      f 8, width 128, multipliers (1, 2, 2, 4)
    diffusers aMUSEd [64]                  f 16, width 128, multipliers (1, 2, 2, 4, 6), latent 64,
                                           attention_levels (), middle_attention False

and in general diffusers' `VQModel` with norm_type "group": width x multipliers are its
block_out_channels, num_blocks its layers_per_block, latent its latent_channels, num_groups its
norm_num_groups, middle_attention its mid_block_add_attention, and the code width its vq_embed_dim;
its Attn blocks must mirror each other. `project` is quant_conv in the encoder and post_quant_conv
in the decoder, whose level 0 is the lowest, as theirs. All names: `tokenizer/weights.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from layers.axes import constrain
from layers.conv import HALVING, Conv, GroupNorm, Window, enlarge
from tokenizer.backbones.config import BackboneConfig, require_whole


class ResidualBlock(nnx.Module):
    """shortcut(x) + conv(swish(norm(conv(swish(norm(x)))))); the shortcut is a linear map of the
    channels where their number changes, and nothing elsewhere."""

    def __init__(self, num_in: int, num_out: int, num_groups: int, *, rngs: nnx.Rngs) -> None:
        self.norm_in = GroupNorm(num_in, num_groups)
        self.conv_in = Conv(num_in, num_out, rngs=rngs)
        self.norm_out = GroupNorm(num_out, num_groups)
        self.conv_out = Conv(num_out, num_out, rngs=rngs, scale=0.5)
        changes = num_in != num_out
        self.shortcut = Conv(num_in, num_out, Window(1), rngs=rngs) if changes else None

    def __call__(self, x: Float[Array, "B Y X I"]) -> Float[Array, "B Y X O"]:
        """The updated map."""
        update = self.conv_in(jax.nn.silu(self.norm_in(x)))
        update = self.conv_out(jax.nn.silu(self.norm_out(update)))
        return constrain((x if self.shortcut is None else self.shortcut(x)) + update, "BYXC")


class PositionAttention(nnx.Module):
    """x + out(softmax(q k^T / sqrt(C)) v) over all positions, one head as wide as the map."""

    def __init__(self, num_channels: int, num_groups: int, *, rngs: nnx.Rngs) -> None:
        self.norm = GroupNorm(num_channels, num_groups)
        point = Window(1)
        self.query = Conv(num_channels, num_channels, point, rngs=rngs)
        self.key = Conv(num_channels, num_channels, point, rngs=rngs)
        self.value = Conv(num_channels, num_channels, point, rngs=rngs)
        self.out = Conv(num_channels, num_channels, point, rngs=rngs, scale=0.5)

    def __call__(self, x: Float[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
        """The updated map."""
        B, Y, X, C = x.shape
        normal = self.norm(x)
        query, key, value = (
            part(normal).reshape(B, Y * X, 1, C) for part in (self.query, self.key, self.value)
        )
        heads = jax.nn.dot_product_attention(query, key, value)
        return constrain(x + self.out(heads.reshape(x.shape)), "BYXC")


class Level(nnx.Module):
    """Residual blocks that take `widths[i]` channels to `widths[i + 1]`, each with attention behind
    it if the level `attends`."""

    def __init__(
        self, widths: Sequence[int], num_groups: int, *, attends: bool, rngs: nnx.Rngs
    ) -> None:
        self.blocks = nnx.List(
            ResidualBlock(before, after, num_groups, rngs=rngs)
            for before, after in itertools.pairwise(widths)
        )
        self.attentions = nnx.List(
            PositionAttention(after, num_groups, rngs=rngs) for after in widths[1:] if attends
        )

    def __call__(self, x: Float[Array, "B Y X I"]) -> Float[Array, "B Y X O"]:
        """The map at the same resolution."""
        for i, block in enumerate(self.blocks):
            x = block(x)
            x = self.attentions[i](x) if self.attentions else x
        return x


class Middle(nnx.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, config: BackboneConfig, *, rngs: nnx.Rngs) -> None:
        width, num_groups = config.level_widths[-1], config.conv.num_groups
        self.before = ResidualBlock(width, width, num_groups, rngs=rngs)
        attends = config.conv.middle_attention
        self.attention = PositionAttention(width, num_groups, rngs=rngs) if attends else None
        self.after = ResidualBlock(width, width, num_groups, rngs=rngs)

    def __call__(self, x: Float[Array, "B y x C"]) -> Float[Array, "B y x C"]:
        """The updated map."""
        x = self.before(x)
        return self.after(x if self.attention is None else self.attention(x))


class ConvEncoder(nnx.Module):
    """Down the levels, each but the last followed by a convolution of stride 2."""

    def __init__(self, config: BackboneConfig, code_width: int, *, rngs: nnx.Rngs) -> None:
        widths, own = config.level_widths, config.conv
        self.f = config.downsampling
        self.stem = Conv(config.channels, widths[0], rngs=rngs)
        self.levels = nnx.List()
        for i, width in enumerate(widths):
            chain = (widths[max(i - 1, 0)], *(width,) * config.num_blocks)
            level = Level(chain, own.num_groups, attends=own.attends(i), rngs=rngs)
            self.levels.append(level)
        self.downs = nnx.List(Conv(width, width, HALVING, rngs=rngs) for width in widths[:-1])
        self.middle = Middle(config, rngs=rngs)
        self.norm = GroupNorm(widths[-1], own.num_groups)
        self.head = Conv(widths[-1], own.latent, rngs=rngs)
        self.project = Conv(own.latent, code_width, Window(1), rngs=rngs)

    def __call__(self, pixels: Float[Array, "B Y X C"]) -> Float[Array, "B y x Z"]:
        """Unbounded vectors; the quantizer bounds them."""
        require_whole(pixels.shape[1], pixels.shape[2], self.f)
        x = self.stem(pixels)
        for i, level in enumerate(self.levels):
            x = level(x)
            x = self.downs[i](x) if i < len(self.downs) else x
        x = jax.nn.silu(self.norm(self.middle(x)))
        return self.project(self.head(x))


class ConvDecoder(nnx.Module):
    """Up the levels, lowest first, each but the last enlarged and convolved; one residual block a
    level more than the encoder has."""

    last = ("head",)

    def __init__(self, config: BackboneConfig, code_width: int, *, rngs: nnx.Rngs) -> None:
        widths, own = config.level_widths[::-1], config.conv
        self.project = Conv(code_width, own.latent, Window(1), rngs=rngs)
        self.stem = Conv(own.latent, widths[0], rngs=rngs)
        self.middle = Middle(config, rngs=rngs)
        self.levels = nnx.List()
        for i, width in enumerate(widths):
            chain = (widths[max(i - 1, 0)], *(width,) * (config.num_blocks + 1))
            attends = own.attends(len(widths) - 1 - i)
            self.levels.append(Level(chain, own.num_groups, attends=attends, rngs=rngs))
        self.ups = nnx.List(Conv(width, width, rngs=rngs) for width in widths[:-1])
        self.norm = GroupNorm(widths[-1], own.num_groups)
        self.head = Conv(widths[-1], config.channels, rngs=rngs, scale=0.3)

    def features(self, values: Float[Array, "B y x Z"]) -> Float[Array, "B Y X D"]:
        """The last map before the pixels."""
        x = self.middle(self.stem(self.project(values)))
        for i, level in enumerate(self.levels):
            x = level(x)
            x = self.ups[i](enlarge(x)) if i < len(self.ups) else x
        return jax.nn.silu(self.norm(x))

    def paint(self, features: Float[Array, "B Y X D"]) -> Float[Array, "B Y X C"]:
        """One convolution to pixels."""
        return self.head(features)
