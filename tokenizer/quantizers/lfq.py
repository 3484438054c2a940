"""Lookup-free quantization: each channel's sign is a bit (Yu et al. 2023, MAGVIT-v2, arXiv
2310.05737, section 3.1; commitment as in Luo et al. 2024, Open-MAGVIT2, arXiv 2409.04410).

    values = sign(z) (-1 at 0),
    loss = beta mean (z - sg(values))^2 + entropy (mean H(p(c | z)) - diversity H(mean p(c | z)))

The alphabet of a position is 2^width. It is cut into codes of `bits` each, which is what a decoder
predicts (Open-MAGVIT2's token factorization); between codes the batch's entropy is summed as if
they were independent, within a code it is exact (see `joint_entropy`).

Where we differ: entropies are in nats a code, so that `entropy` means the same for any number of
codes, and the softer temperature 0.1 (theirs is 0.01) lets bits feel them farther from zero.
"""

from __future__ import annotations

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from tokenizer.quantizers.bits import (
    BitsConfig,
    joint_entropy,
    pack,
    position_entropy,
    signs,
    weighed,
)
from tokenizer.quantizers.contract import Quantized, straight_through


class LFQ(nnx.Module):
    """`num_codes` codes of `bits` sign bits each, side by side in the channels."""

    def __init__(self, config: BitsConfig, num_codes: int) -> None:
        self.config = config
        self.num_codes = num_codes
        self.codebook_size = 2**config.bits
        self.width = config.bits * num_codes

    def quantize(self, z: Float[Array, "B y x Z"], *, key: Array | None = None) -> Quantized:
        """Signs; the gradient passes them unchanged. `key` is unused."""
        config = self.config
        codes = pack(z > 0, self.num_codes)
        target = self.lookup(codes)
        logits = 4.0 * z / config.temperature
        position = position_entropy(logits, self.num_codes)
        batch = joint_entropy(logits, self.num_codes)
        miss = z - jax.lax.stop_gradient(target)
        loss, scalars = weighed(config, miss, position, batch)
        return Quantized(straight_through(z, target), codes, loss, scalars)

    def lookup(self, codes: Int[Array, "B y x Q"]) -> Float[Array, "B y x Z"]:
        """-1 and 1."""
        return signs(codes, self.config.bits)
