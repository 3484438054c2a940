"""Product quantization: the channels are cut into Q groups, and each group has a code of its
own."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from tokenizer.quantizers.contract import Quantized, Quantizer


class Product(nnx.Module):
    """Q codes a position from one stateless quantizer of one code, used on every group alike."""

    def __init__(self, part: Quantizer, num_codes: int) -> None:
        if part.num_codes != 1:
            raise ValueError(f"a product needs parts of one code each, not {part.num_codes}")
        self.part = part
        self.num_codes = num_codes
        self.codebook_size = part.codebook_size
        self.width = part.width * num_codes

    def quantize(self, z: Float[Array, "B y x Z"]) -> Quantized:
        """Group q holds channels q * part.width and on."""
        B, y, x, _ = z.shape
        grouped = self.part.quantize(z.reshape(B, y, x * self.num_codes, self.part.width))
        return Quantized(
            grouped.values.reshape(z.shape),
            grouped.codes.reshape(B, y, x, self.num_codes),
            grouped.loss,
        )

    def lookup(self, codes: Int[Array, "B y x Q"]) -> Float[Array, "B y x Z"]:
        """Values of the groups side by side."""
        B, y, x, Q = codes.shape
        values = self.part.lookup(jnp.reshape(codes, (B, y, x * Q, 1)))
        return values.reshape(B, y, x, self.width)
