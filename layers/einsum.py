"""The one linear map: an equation in the alphabet says its kernel's axes, its fan-in and its
sharding."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from layers.quantized import Quantized

Kernel = Array | Quantized
PRODUCT = "product"
"""The name that a remat policy knows a product of weights by: `_narrow_product` hides its own from
policies that look for `dot_general`."""


class Einsum(nnx.Module):
    """`Einsum("BTD,DNH->BTNH", {"D": 64, "N": 4, "H": 16})` maps width to heads.

    The kernel starts as a normal of variance `scale**2 / fan_in` over the letters it sums away.
    With an `inner` dtype that is multiplied, whatever an activation has; sums are float32, and the
    result is of the activation's own.
    """

    def __init__(
        self,
        equation: str,
        sizes: Mapping[str, int],
        *,
        rngs: nnx.Rngs,
        scale: float = 1.0,
        inner: str = "",
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
        self.inner = inner
        kernel = jax.random.normal(rngs.params(), shape) * (scale * fan_in**-0.5)
        self.kernel = nnx.Param(kernel, axes=kernel_axes, summed=summed)

    def __call__(self, x: Float[Array, ...]) -> Float[Array, ...]:
        """The product, in `x`'s dtype; the kernel's gradient is summed, over devices too, in its
        own."""
        return checkpoint_name(self.product(x, self.kernel[...]), PRODUCT)

    def product(self, x: Float[Array, ...], kernel: Kernel) -> Array:
        """The same with a kernel that is a part of its own."""
        return product(self.equation, x, kernel, inner=self.inner)


def product(
    equation: str, x: Float[Array, ...], kernel: Kernel, *, inner: str = ""
) -> Float[Array, ...]:
    """The product of an activation with a kernel of whatever type, in `x`'s dtype; what is
    multiplied is of the `inner` one, or of `x`'s too."""
    inner = inner or str(x.dtype)
    if isinstance(kernel, Quantized):
        return contract(equation, x.astype(inner), kernel, out=x.dtype)
    if {inner, str(x.dtype), str(kernel.dtype)} == {inner}:
        return contract(equation, x, kernel)
    return _narrow_product(equation, inner, str(x.dtype), x, kernel)


def contract(
    equation: str, x: Float[Array, ...], kernel: Kernel, *, out: DTypeLike | None = None
) -> Array:
    """`jnp.einsum` of two arrays, but that letters summed away go in the kernel's order: einsum
    turns them round, and of a kernel that is read for a few tokens XLA then makes a copy. The
    result is of dtype `out`, or of theirs.

    A quantised kernel's scales are multiplied with the product."""
    inputs, output = equation.split("->")
    if isinstance(kernel, Quantized):
        summed = [i for i, letter in enumerate(inputs.split(",")[1]) if letter not in output]
        product = contract(equation, x, kernel.values.astype(x.dtype), out=out)
        return product * kernel.scale.squeeze(summed).astype(product.dtype)
    left, right = inputs.split(",")
    summed = [letter for letter in right if letter in left and letter not in output]
    rest = "".join(letter for letter in left + right if letter not in summed)
    if rest != output:  # letters that both keep, or another order
        return jnp.einsum(equation, x, kernel, preferred_element_type=out)
    places = ([left.index(s) for s in summed], [right.index(s) for s in summed])
    with jax.named_scope(equation):
        return jax.lax.dot_general(x, kernel, (places, ([], [])), preferred_element_type=out)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _narrow_product(
    equation: str, inner: str, outer: str, x: Float[Array, ...], kernel: Float[Array, ...]
) -> Array:
    """The product of both rounded to `inner`, in `outer`, the dtype of `x`. JAX would round the
    kernel's gradient to `inner` before the devices add their shares."""
    return contract(equation, x.astype(inner), kernel.astype(inner), out=outer)


def _forward(
    equation: str, inner: str, outer: str, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _narrow_product(equation, inner, outer, x, kernel), (x.astype(inner), kernel)


def _backward(
    equation: str, inner: str, outer: str, inputs: tuple[Array, Array], pull: Array
) -> tuple[Array, Array]:
    x, kernel = inputs
    inside, output = equation.split("->")
    left, right = inside.split(",")
    pull, narrow = pull.astype(inner), kernel.astype(inner)
    to_x = jnp.einsum(f"{output},{right}->{left}", pull, narrow, preferred_element_type=outer)
    to_kernel = jnp.einsum(
        f"{output},{left}->{right}", pull, x, preferred_element_type=kernel.dtype
    )
    return to_x, to_kernel


_narrow_product.defvjp(_forward, _backward)
