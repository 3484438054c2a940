"""The visual tokenizer: pixels to codes and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from layers.block import DTYPES
from tokenizer.backbones import BackboneConfig, make_decoder, make_encoder
from tokenizer.quantizers.contract import Quantized
from tokenizer.quantizers.menu import QuantizerConfig, make_quantizer


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Everything that decides the tokenizer's shape.

    `dtype` is that of the two halves' feature maps. Parameters stay float32, and so do statistics
    of norms, the quantizer, and the last layer, which paints the pixels.
    """

    backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    quantizer: QuantizerConfig = dataclasses.field(default_factory=QuantizerConfig)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """A page through the bottleneck and back; `features` are what the decoder's `paint` made it
    of."""

    pixels: Float[Array, "B Y X C"]
    quantized: Quantized
    features: Any


class Tokenizer(nnx.Module):
    """PixelEncoder, quantizer, PixelDecoder. Pixels are float32 in [-1, 1]."""

    def __init__(self, config: TokenizerConfig, *, rngs: nnx.Rngs) -> None:
        self.quantizer = make_quantizer(config.quantizer, rngs=rngs)
        self.encoder = make_encoder(config.backbone, self.quantizer.width, rngs=rngs)
        self.decoder = make_decoder(config.backbone, self.quantizer.width, rngs=rngs)
        self.dtype = config.dtype

    def __call__(
        self, pixels: Float[Array, "B Y X C"], *, key: Array | None = None
    ) -> Reconstruction:
        """The reconstruction that training sees (gradients pass the quantizer); a `key` says that
        this is training, so that the quantizer's statistics move."""
        quantized = self.quantizer.quantize(self._vectors(pixels), key=key)
        features = self._features(quantized.values)
        return Reconstruction(self.decoder.paint(features), quantized, features)

    def encode(self, pixels: Float[Array, "B Y X C"]) -> Int[Array, "B y x Q"]:
        """Codes of a page."""
        return self.quantizer.quantize(self._vectors(pixels)).codes

    def decode(self, codes: Int[Array, "B y x Q"]) -> Float[Array, "B Y X C"]:
        """Pixels of codes, clipped to [-1, 1]."""
        return self.decoder.paint(self._features(self.quantizer.lookup(codes))).clip(-1.0, 1.0)

    def _vectors(self, pixels: Float[Array, "B Y X C"]) -> Float[Array, "B y x Z"]:
        return self.encoder(pixels.astype(self.dtype)).astype(jnp.float32)

    def _features(self, values: Float[Array, "B y x Z"]) -> Any:
        narrow = self.decoder.features(values.astype(self.dtype))
        return jax.tree.map(lambda x: x.astype(jnp.float32), narrow)
