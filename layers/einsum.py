"""The one linear map: an equation in the alphabet says its kernel's axes, its fan-in and its
sharding."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class Einsum(nnx.Module):
    """`Einsum("BTD,DNH->BTNH", {"D": 64, "N": 4, "H": 16})` maps width to heads.

    The kernel starts as a normal of variance `scale**2 / fan_in` over the letters it sums away.
    """

    def __init__(
        self, equation: str, sizes: Mapping[str, int], *, rngs: nnx.Rngs, scale: float = 1.0
    ) -> None:
        inputs, output = equation.split("->")
        _, kernel_axes = inputs.split(",")
        missing = [letter for letter in kernel_axes if letter not in sizes]
        if missing:
            raise ValueError(
                f"{equation!r} has no size for {', '.join(missing)}; got {dict(sizes)}"
            )
        shape = tuple(sizes[letter] for letter in kernel_axes)
        summed = "".join(letter for letter in kernel_axes if letter not in output)
        fan_in = 1
        for letter in summed:
            fan_in *= sizes[letter]
        self.equation = equation
        kernel = jax.random.normal(rngs.params(), shape) * (scale * fan_in**-0.5)
        self.kernel = nnx.Param(kernel, axes=kernel_axes, summed=summed)

    def __call__(self, x: Float[Array, ...]) -> Float[Array, ...]:
        """The product, in `x`'s dtype."""
        return jnp.einsum(self.equation, x, self.kernel[...].astype(x.dtype))
