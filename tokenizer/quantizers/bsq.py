"""Binary spherical quantization: signs of a vector on the unit sphere (Zhao et al. 2024, arXiv
2406.07548).

    u = z / |z|,   values = sign(u) / sqrt(L) (also of length 1),   L = bits of a position
    loss = beta mean (u - sg(values))^2 + entropy (mean H(p(c | u)) - diversity sum_d H(mean p_d))

The soft choice is a product over bits, p_d = sigmoid(4 u_d / (T sqrt(L))), so a position's entropy
is exactly the sum of its bits'; the batch's entropy is replaced by that of independent bits, its
upper bound, which costs L numbers instead of 2^L.

Where we differ: entropies are in nats a code and T is 0.1 with the weight as given (the authors'
code divides weight and temperature by the same number).
"""

from __future__ import annotations

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from tokenizer.quantizers.bits import (
    BitsConfig,
    marginal_entropy,
    pack,
    position_entropy,
    signs,
    weighed,
)
from tokenizer.quantizers.contract import Quantized, straight_through, unit


class BSQ(nnx.Module):
    """`num_codes` codes of `bits` sign bits each; all bits of a position share one sphere."""

    def __init__(self, config: BitsConfig, num_codes: int) -> None:
        self.config = config
        self.num_codes = num_codes
        self.codebook_size = 2**config.bits
        self.width = config.bits * num_codes

    def quantize(self, z: Float[Array, "B y x Z"], *, key: Array | None = None) -> Quantized:
        """Signs of the normalised vector; the gradient passes them unchanged to it. `key` is
        unused."""
        config, u = self.config, unit(z)
        codes = pack(u > 0, self.num_codes)
        target = self.lookup(codes)
        logits = 4.0 * u / (config.temperature * self.width**0.5)
        position = position_entropy(logits, self.num_codes)
        batch = marginal_entropy(logits, self.num_codes)
        miss = u - jax.lax.stop_gradient(target)
        loss, scalars = weighed(config, miss, position, batch)
        return Quantized(straight_through(u, target), codes, loss, scalars)

    def lookup(self, codes: Int[Array, "B y x Q"]) -> Float[Array, "B y x Z"]:
        """-1 / sqrt(L) and 1 / sqrt(L)."""
        return signs(codes, self.config.bits) * self.width**-0.5
