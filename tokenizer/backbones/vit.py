"""The transformer backbone of ViT-VQGAN (Yu et al. 2021, section 3.1).

Patches of f x f pixels become tokens that all see one another, with rotary positions of row and
column. Where we differ: SwiGLU, RMSNorm and rotary positions instead of learnt ones, so that pages
of any size go through; the head is linear, where theirs is an MLP of two layers with tanh between.
Attention over (page side / f)^2 positions is kept whole in memory: at f8, 512 px is 4,096 of them.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from layers.block import Block, BlockConfig, Stack
from layers.einsum import Einsum
from layers.masks import Mask
from layers.norm import RMSNorm
from layers.rope import rotations
from tokenizer.backbones.config import BackboneConfig
from tokenizer.backbones.patch import cut, join


def places(y: int, x: int) -> Float[Array, "1 T 2"]:
    """Row and column of each position in raster order, counted from 1 (0 is no place)."""
    rows, columns = jnp.mgrid[1 : y + 1, 1 : x + 1]
    return jnp.stack([rows.ravel(), columns.ravel()], axis=-1)[None].astype(jnp.float32)


class Transformer(nnx.Module):
    """Blocks in which every position sees every other, and a norm."""

    def __init__(self, config: BackboneConfig, *, rngs: nnx.Rngs) -> None:
        heads = config.vit.num_heads
        self.head_size = config.width // heads
        block = BlockConfig(
            width=config.width, num_layers=config.num_blocks, num_heads=heads, num_kv_heads=heads,
            head_size=self.head_size, hidden=config.hidden, qk_norm=config.vit.qk_norm,
        )  # fmt: skip
        self.blocks = Stack(lambda r: Block(block, rngs=r), config.num_blocks, rngs=rngs)
        self.norm = RMSNorm(config.width)

    def __call__(self, x: Float[Array, "B y x D"]) -> Float[Array, "B y x D"]:
        """Normalised features of each position."""
        B, y, width, D = x.shape
        where = jnp.broadcast_to(places(y, width), (B, y * width, 2))
        turn, mask = rotations(where, self.head_size), Mask()
        tokens, _ = self.blocks.scan(
            lambda layer, x, _: (layer(x, turn, mask)[0], None), x.reshape(B, y * width, D)
        )
        return self.norm(tokens).reshape(x.shape)


class ViTEncoder(nnx.Module):
    """Patches through the transformer to the quantizer's input."""

    def __init__(self, config: BackboneConfig, code_width: int, *, rngs: nnx.Rngs) -> None:
        self.f = config.downsampling
        sizes = {"I": self.f**2 * config.channels, "D": config.width, "Z": code_width}
        self.stem = Einsum("ByxI,ID->ByxD", sizes, rngs=rngs)
        self.trunk = Transformer(config, rngs=rngs)
        self.head = Einsum("ByxD,DZ->ByxZ", sizes, rngs=rngs)

    def __call__(self, pixels: Float[Array, "B Y X C"]) -> Float[Array, "B y x Z"]:
        """Unbounded vectors; the quantizer bounds them."""
        return self.head(self.trunk(self.stem(cut(pixels, self.f))))


class ViTDecoder(nnx.Module):
    """The mirror image: values through the transformer to patches."""

    last = ("head",)

    def __init__(self, config: BackboneConfig, code_width: int, *, rngs: nnx.Rngs) -> None:
        self.f = config.downsampling
        sizes = {"O": self.f**2 * config.channels, "D": config.width, "Z": code_width}
        self.stem = Einsum("ByxZ,ZD->ByxD", sizes, rngs=rngs)
        self.trunk = Transformer(config, rngs=rngs)
        self.head = Einsum("ByxD,DO->ByxO", sizes, rngs=rngs, scale=0.3)

    def features(self, values: Float[Array, "B y x Z"]) -> Float[Array, "B y x D"]:
        """Normalised features of each position."""
        return self.trunk(self.stem(values))

    def paint(self, features: Float[Array, "B y x D"]) -> Float[Array, "B Y X C"]:
        """One linear map to patches."""
        return join(self.head(features), self.f)
