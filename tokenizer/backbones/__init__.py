"""The tokenizer's two halves, one file a kind: patch (matmul only), conv (VQGAN), vit (ViT-VQGAN).

An encoder maps pixels to the quantizer's input. A decoder maps the quantizer's values to pixels in
two steps, `features` and `paint`, because the critic's adaptive weight looks at the parameters of
the second (`last` names them).
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from flax import nnx
from jaxtyping import Array, Float

from tokenizer.backbones.config import BackboneConfig, ConvConfig, ViTConfig
from tokenizer.backbones.conv import ConvDecoder, ConvEncoder
from tokenizer.backbones.patch import PatchDecoder, PatchEncoder, cut, join
from tokenizer.backbones.vit import ViTDecoder, ViTEncoder

__all__ = [
    "BackboneConfig", "ConvConfig", "PixelDecoder", "PixelEncoder", "ViTConfig", "cut", "join",
    "make_decoder", "make_encoder",
]  # fmt: skip


@runtime_checkable
class PixelEncoder(Protocol):
    """Pixels in [-1, 1] to the quantizer's input at each code position."""

    def __call__(self, pixels: Float[Array, "B Y X C"]) -> Float[Array, "B y x Z"]:
        """Unbounded vectors; the quantizer bounds them. Raises `ValueError` for a page whose
        sides are no multiples of the downsampling."""
        ...


@runtime_checkable
class PixelDecoder(Protocol):
    """The quantizer's values to pixels (about [-1, 1], not clipped)."""

    last: tuple[str, ...]

    def features(self, values: Float[Array, "B y x Z"]) -> Any:
        """What `paint` paints."""
        ...

    def paint(self, features: Any) -> Float[Array, "B Y X C"]:
        """The page, by the last layer alone: linear in the parameters that `last` names."""
        ...


_ENCODERS = {"conv": ConvEncoder, "patch": PatchEncoder, "vit": ViTEncoder}
_DECODERS = {"conv": ConvDecoder, "patch": PatchDecoder, "vit": ViTDecoder}


def make_encoder(config: BackboneConfig, code_width: int, *, rngs: nnx.Rngs) -> PixelEncoder:
    """The encoder that a config names."""
    return _ENCODERS[config.name](config, code_width, rngs=rngs)


def make_decoder(config: BackboneConfig, code_width: int, *, rngs: nnx.Rngs) -> PixelDecoder:
    """The decoder that a config names."""
    return _DECODERS[config.name](config, code_width, rngs=rngs)
