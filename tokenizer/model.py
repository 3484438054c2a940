"""The visual tokenizer: pixels to codes and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from tokenizer.backbones import BackboneConfig, make_decoder, make_encoder
from tokenizer.quantizers.contract import Quantized
from tokenizer.quantizers.menu import QuantizerConfig, make_quantizer


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Everything that decides the tokenizer's shape."""

    backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    quantizer: QuantizerConfig = dataclasses.field(default_factory=QuantizerConfig)


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

    def __call__(
        self, pixels: Float[Array, "B Y X C"], *, key: Array | None = None
    ) -> Reconstruction:
        """The reconstruction that training sees (gradients pass the quantizer); a `key` says that
        this is training, so that the quantizer's statistics move."""
        quantized = self.quantizer.quantize(self.encoder(pixels), key=key)
        features = self.decoder.features(quantized.values)
        return Reconstruction(self.decoder.paint(features), quantized, features)

    def encode(self, pixels: Float[Array, "B Y X C"]) -> Int[Array, "B y x Q"]:
        """Codes of a page."""
        return self.quantizer.quantize(self.encoder(pixels)).codes

    def decode(self, codes: Int[Array, "B y x Q"]) -> Float[Array, "B Y X C"]:
        """Pixels of codes, clipped to [-1, 1]."""
        features = self.decoder.features(self.quantizer.lookup(codes))
        return self.decoder.paint(features).clip(-1.0, 1.0)
