"""The visual decoder: a blueprint's conditioning and partly masked codes to logits of every
code."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from decoder.conditioning import (
    CAPTION_FEATURES,
    CHARACTER_FEATURES,
    REGION_FEATURES,
    ConditioningConfig,
)
from layers.axes import constrain
from layers.block import Block, BlockConfig, Stack
from layers.einsum import Einsum
from layers.embedding import Embed
from layers.norm import RMSNorm
from layers.rope import rotations

COPY_BIAS = 2.0  # in nats: what a fresh decoder gives the canonical page's code over any other
SHARPNESS = 25.0  # 1 / variance around a predicted level, where levels reach from -1 to 1


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """`num_codes` and `codebook_size` are the tokenizer's; `objective` has one value so far,
    `masked`.

    `ordered` says that a code is one scalar's level (FSQ of one channel), so that near codes mean
    near values: the head then predicts a level for each code beside the free logits.
    """

    blocks: BlockConfig
    num_codes: int
    codebook_size: int
    conditioning: ConditioningConfig
    objective: str = "masked"
    ordered: bool = False

    def __post_init__(self) -> None:
        if self.objective != "masked":
            raise ValueError(f"objective {self.objective!r} is not known; there is: masked")

    @property
    def region_width(self) -> int:
        """Features of a code position's regions, ground and caption."""
        return 3 + self.conditioning.slots * REGION_FEATURES + CAPTION_FEATURES


class Decoder(nnx.Module):
    """Bidirectional over letters and code positions, which share one 2D coordinate system."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        width, Q, V = config.blocks.width, config.num_codes, config.codebook_size
        window = (2 * config.conditioning.downsampling) ** 2
        sizes = {"D": width, "Q": Q, "V": V}

        def project(features: int) -> Einsum:
            return Einsum("BTI,ID->BTD", {"I": features, "D": width}, rngs=rngs)

        self.codes_in = Einsum("BTQV,QVD->BTD", sizes, rngs=rngs)
        self.mask_vector = nnx.Param(jnp.zeros((width,)), axes="D", summed="")
        self.regions_in = project(config.region_width)
        self.glyphs_in = project(window)
        self.copies_in = Einsum("BTQV,QVD->BTD", sizes, rngs=rngs)
        self.copy_gate = Einsum("BTD,DQ->BTQ", sizes, rngs=rngs, scale=0.1)
        self.copy_bias = nnx.Param(jnp.full((Q,), COPY_BIAS), axes="Q", summed="")
        self.letters_in = Embed(257, width, rngs=rngs, scale=0.5)
        self.styles_in = project(CHARACTER_FEATURES)
        self.mixed_norm = RMSNorm(width)
        hidden = {"D": width, "F": 2 * width}
        self.mix_up = Einsum("BTD,DF->BTF", hidden, rngs=rngs)
        self.mix_down = Einsum("BTF,FD->BTD", hidden, rngs=rngs, scale=0.5)
        make = lambda r: Block(config.blocks, rngs=r)  # noqa: E731
        self.blocks = Stack(make, config.blocks.num_layers, rngs=rngs)
        self.norm = RMSNorm(width)
        self.head = Einsum("BTD,DQV->BTQV", sizes, rngs=rngs, scale=0.1)
        if config.ordered:
            self.level_head = Einsum("BTD,DQ->BTQ", sizes, rngs=rngs, scale=0.1)
            self.log_sharpness = nnx.Param(jnp.full((Q,), math.log(SHARPNESS)), axes="Q", summed="")

    def __call__(
        self,
        codes: Int[Array, "B y x Q"],
        masked: Bool[Array, "B y x"],
        conditions: Mapping[str, Array],
    ) -> Float[Array, "B y x Q V"]:
        """Logits for every position; what `codes` holds where `masked` is True is never seen."""
        B, y, x, Q = codes.shape
        T = y * x
        seen = jax.nn.one_hot(codes.reshape(B, T, Q), self.config.codebook_size)
        hidden = masked.reshape(B, T, 1)
        page = jnp.where(hidden, self.mask_vector[...], self.codes_in(seen) * Q**0.5)
        page = page + self.regions_in(conditions["regions"].reshape(B, T, -1))
        page = page + self.glyphs_in(conditions["glyphs"].reshape(B, T, -1) / 127.5)
        copies = jax.nn.one_hot(
            conditions["glyph_codes"].reshape(B, T, Q), self.config.codebook_size
        )
        if self.config.conditioning.glyphs == "encoded":
            page = page + self.copies_in(copies) * Q**0.5
        letters = self.letters_in(conditions["letters"]) + self.styles_in(
            conditions["letter_styles"]
        )
        tokens = jnp.concatenate([letters, page], axis=1)
        tokens = tokens + self.mix_down(jax.nn.silu(self.mix_up(self.mixed_norm(tokens))))
        grid = jnp.stack(jnp.mgrid[:y, :x], axis=-1).reshape(1, T, 2) + 1.5
        places = jnp.concatenate(
            [conditions["letter_places"], jnp.broadcast_to(grid, (B, T, 2))], axis=1
        )
        turn = rotations(places, self.config.blocks.head_size, theta=100.0)
        there = jnp.concatenate([conditions["letters"] > 0, jnp.ones((B, T), bool)], axis=1)
        mask = there[:, None, None, :]
        tokens, _ = self.blocks.scan(
            lambda layer, x, _: (layer(x, turn, mask)[0], None), constrain(tokens, "BTD")
        )
        logits = self._logits(self.norm(tokens[:, -T:]), copies)
        return logits.reshape(B, y, x, Q, -1)

    def _logits(
        self, features: Float[Array, "B T D"], copies: Float[Array, "B T Q V"]
    ) -> Float[Array, "B T Q V"]:
        """Free logits, plus a bonus for the canonical page's code, plus for ordered codes a
        parabola around a level that starts from the canonical one."""
        logits = self.head(features)
        level = jnp.zeros(copies.shape[:3])
        levels = jnp.linspace(-1.0, 1.0, self.config.codebook_size)
        if self.config.conditioning.glyphs == "encoded":
            gate = self.copy_gate(features) + self.copy_bias[...]
            logits = logits + gate[..., None] * copies
            level = jax.nn.sigmoid(gate) * (copies @ levels)
        if self.config.ordered:
            level = (level + self.level_head(features))[..., None]
            parabola = levels * level - levels * levels / 2
            logits = logits + jnp.exp(self.log_sharpness[...])[:, None] * parabola
        return logits
