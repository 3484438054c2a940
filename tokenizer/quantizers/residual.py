"""Residual quantization: each code says what the codes before it left (Juang & Gray 1982; for
codecs Zeghidour et al. 2021, SoundStream, arXiv 2107.03312, algorithm 1; for images Lee et al.
2022, RQ-VAE, arXiv 2203.01941, section 3.1).

    u = bound(z),  r_1 = u,  v_i = s_i q_i(r_i / s_i),  r_(i+1) = r_i - v_i,  values = sum_i v_i

Every part is its own (RQ-VAE shares one table). The scales s_i are 1 for tables, which learn the
size of what they are given; levels and bits do not learn, so each stage enlarges its residual to
fill their range. The gradient is the identity from values to u, so tables learn from their own
terms alone (IBQ's too), which are averaged where the papers sum them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from tokenizer.quantizers.contract import (
    Quantized,
    Quantizer,
    gather,
    split_keys,
    straight_through,
)


class Residual(nnx.Module):
    """As many codes a position as there are parts (of one code each), coarse to fine.

    `scales` has a number for each part, or one for each of its channels; `bound` takes inputs to
    where the first part's values lie.
    """

    def __init__(
        self,
        parts: Sequence[Quantizer],
        scales: Sequence[float | tuple[float, ...]],
        *,
        bound: Callable[[Array], Array] | None = None,
    ) -> None:
        if any(part.num_codes != 1 for part in parts):
            raise ValueError("a residual needs parts of one code each; name another quantizer.part")
        if len(parts) != len(scales):
            raise ValueError(f"a residual of {len(parts)} parts got {len(scales)} scales")
        self.parts = nnx.List(parts)
        self.scales = tuple(scales)
        self.bound = bound
        self.num_codes = len(parts)
        self.codebook_size = parts[0].codebook_size
        self.width = parts[0].width

    def quantize(self, z: Float[Array, "B y x Z"], *, key: Array | None = None) -> Quantized:
        """Stage by stage; what is left is a constant to the later stages' gradient paths, but for
        u itself."""
        u = self.bound(z) if self.bound else z
        total, outs = jnp.zeros_like(u), []
        keys = split_keys(key, self.num_codes)
        for part, scale, key in zip(self.parts, self.scales, keys, strict=True):
            scale = jnp.array(scale, u.dtype)
            out = part.quantize((u - total) / scale, key=key)
            total = total + jax.lax.stop_gradient(out.values) * scale
            outs.append(out)
        codes = jnp.concatenate([out.codes for out in outs], axis=-1)
        return Quantized(straight_through(u, total), codes, *gather(outs))

    def lookup(self, codes: Int[Array, "B y x Q"]) -> Float[Array, "B y x Z"]:
        """The sum of the stages' values."""
        columns = jnp.split(codes, self.num_codes, axis=-1)
        stages = zip(self.parts, columns, self.scales, strict=True)
        return sum(part.lookup(c) * jnp.array(scale) for part, c, scale in stages)
