"""Product quantization: the channels are cut into Q groups, and each group has a code of its own
(Jegou et al. 2011, doi 10.1109/TPAMI.2010.57, section II-B; for image tokenizers UniTok, Ma et al.
2025, arXiv 2502.20321).

q(z) = [q_1(z_1), ..., q_Q(z_Q)], so V codes each give V^Q values. Parts that learn or count have a
group each (UniTok's sub-codebooks); one that does neither may serve all groups at once, which keeps
a product of FSQ as fast as one FSQ.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from tokenizer.quantizers.contract import Quantized, Quantizer, gather, split_keys


class Product(nnx.Module):
    """Q codes a position from parts of one code each: one part for all groups (it must have neither
    arrays nor a loss of its own), or one for each group."""

    def __init__(self, parts: Sequence[Quantizer], num_codes: int) -> None:
        if len(parts) not in (1, num_codes):
            raise ValueError(
                f"a product of {num_codes} codes got {len(parts)} parts; give 1 or {num_codes}"
            )
        if any(part.num_codes != 1 for part in parts):
            raise ValueError("a product needs parts of one code each; name another quantizer.part")
        self.parts = nnx.List(parts)
        self.num_codes = num_codes
        self.codebook_size = parts[0].codebook_size
        self.width = parts[0].width * num_codes

    def quantize(self, z: Float[Array, "B y x Z"], *, key: Array | None = None) -> Quantized:
        """Group q holds channels q * part.width and on."""
        B, y, x, _ = z.shape
        if len(self.parts) == 1:
            part = self.parts[0]
            one = part.quantize(z.reshape(B, y, x * self.num_codes, part.width), key=key)
            codes = one.codes.reshape(B, y, x, self.num_codes)
            return Quantized(one.values.reshape(z.shape), codes, one.loss, one.scalars)
        groups = jnp.split(z, self.num_codes, axis=-1)
        keys = split_keys(key, self.num_codes)
        outs = [
            part.quantize(group, key=key)
            for part, group, key in zip(self.parts, groups, keys, strict=True)
        ]
        values = jnp.concatenate([out.values for out in outs], axis=-1)
        codes = jnp.concatenate([out.codes for out in outs], axis=-1)
        return Quantized(values, codes, *gather(outs))

    def lookup(self, codes: Int[Array, "B y x Q"]) -> Float[Array, "B y x Z"]:
        """Values of the groups side by side."""
        B, y, x, Q = codes.shape
        if len(self.parts) == 1:
            values = self.parts[0].lookup(jnp.reshape(codes, (B, y, x * Q, 1)))
            return values.reshape(B, y, x, self.width)
        columns = jnp.split(codes, Q, axis=-1)
        values = [part.lookup(c) for part, c in zip(self.parts, columns, strict=True)]
        return jnp.concatenate(values, axis=-1)
