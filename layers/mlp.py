"""The feed-forward half of a block."""

from __future__ import annotations

import jax
from flax import nnx
from jaxtyping import Array, Float

from layers.einsum import Einsum


class SwiGLU(nnx.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, eq. 6), without biases."""

    def __init__(self, sizes: dict[str, int], *, rngs: nnx.Rngs, scale: float = 1.0) -> None:
        self.gate = Einsum("BTD,DF->BTF", sizes, rngs=rngs)
        self.up = Einsum("BTD,DF->BTF", sizes, rngs=rngs)
        self.down = Einsum("BTF,FD->BTD", sizes, rngs=rngs, scale=scale)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The gated update of each position by itself."""
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))
