"""The one linear map: an equation in the alphabet says its kernel's axes, its fan-in and its
sharding."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from layers.quantized import Quantized

Kernel = Array | Quantized
PRODUCT = "product"
"""The name that a remat policy knows a product of weights by: `_narrow_product` hides its own from
policies that look for `dot_general`."""


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
        """The product, in `x`'s dtype; the kernel's gradient is summed, over devices too, in its
        own."""
        kernel = self.kernel[...]
        return checkpoint_name(product(self.equation, x, kernel), PRODUCT)


def product(equation: str, x: Float[Array, ...], kernel: Kernel) -> Array:
    """The product of an activation with a kernel of whatever type, in `x`'s dtype."""
    narrow = isinstance(kernel, jax.Array) and x.dtype != kernel.dtype
    return (_narrow_product if narrow else contract)(equation, x, kernel)


def contract(equation: str, x: Float[Array, ...], kernel: Kernel) -> Array:
    """`jnp.einsum` of two arrays, but that letters summed away go in the kernel's order: einsum
    turns them round, and of a kernel that is read for a few tokens XLA then makes a copy.

    A quantised kernel's scales are multiplied with the product."""
    inputs, output = equation.split("->")
    if isinstance(kernel, Quantized):
        summed = [i for i, letter in enumerate(inputs.split(",")[1]) if letter not in output]
        product = contract(equation, x, kernel.values.astype(x.dtype))
        return product * kernel.scale.squeeze(summed).astype(x.dtype)
    left, right = inputs.split(",")
    summed = [letter for letter in right if letter in left and letter not in output]
    rest = "".join(letter for letter in left + right if letter not in summed)
    if rest != output:  # letters that both keep, or another order
        return jnp.einsum(equation, x, kernel)
    places = ([left.index(s) for s in summed], [right.index(s) for s in summed])
    with jax.named_scope(equation):
        return jax.lax.dot_general(x, kernel, (places, ([], [])))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _narrow_product(equation: str, x: Float[Array, ...], kernel: Float[Array, ...]) -> Array:
    """The product in `x`'s dtype. JAX would round the kernel's gradient to that dtype before the
    devices add their shares."""
    return contract(equation, x, kernel.astype(x.dtype))


def _forward(equation: str, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _narrow_product(equation, x, kernel), (x, kernel)


def _backward(equation: str, inputs: tuple[Array, Array], pull: Array) -> tuple[Array, Array]:
    x, kernel = inputs
    inside, output = equation.split("->")
    left, right = inside.split(",")
    to_x = jnp.einsum(f"{output},{right}->{left}", pull, kernel.astype(x.dtype))
    to_kernel = jnp.einsum(
        f"{output},{left}->{right}", pull, x, preferred_element_type=kernel.dtype
    )
    return to_x, to_kernel


_narrow_product.defvjp(_forward, _backward)
