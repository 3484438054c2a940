"""What every quantizer promises; tests/tokenizer/test_quantizers.py holds all of them to it.

What a quantizer learns by gradient is an `nnx.Param`; what it counts or averages is a `Statistic`,
which the loop carries from step to step. Both change only while training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int


class Statistic(nnx.Variable):
    """What a quantizer gathers from batches: it is saved and restored, and no gradient moves it."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """`values` are those of `codes`, and carry a gradient to the input; `loss` is the quantizer's
    own term, weighted; `scalars` are worth a line in the log."""

    values: Float[Array, "B y x Z"]
    codes: Int[Array, "B y x Q"]
    loss: Float[Array, ""]
    scalars: dict[str, Float[Array, ""]] = dataclasses.field(default_factory=dict)


@runtime_checkable
class Quantizer(Protocol):
    """`num_codes` Q codes a position, each one of `codebook_size` V; `width` Z channels in."""

    num_codes: int
    codebook_size: int
    width: int

    def quantize(self, z: Float[Array, "B y x Z"], *, key: Array | None = None) -> Quantized:
        """Codes of `z` and the values they stand for.

        A `key` says that this is training: statistics move, by this batch and this key alone.
        Without one nothing changes.
        """
        ...

    def lookup(self, codes: Int[Array, "B y x Q"]) -> Float[Array, "B y x Z"]:
        """The same values from integers alone."""
        ...


def unit(x: Float[Array, "*B Z"]) -> Float[Array, "*B Z"]:
    """x / |x|; a zero stays zero, and its gradient finite."""
    square = jnp.square(x).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-12))


def straight_through(z: Float[Array, "*B Z"], values: Float[Array, "*B Z"]) -> Float[Array, "*B Z"]:
    """`values` going forward, the identity to `z` going back (Bengio et al. 2013, arXiv
    1308.3432)."""
    return z + jax.lax.stop_gradient(values - z)


def split_keys(key: Array | None, count: int) -> Sequence[Array | None]:
    """A key for each of `count` parts; none from none."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def gather(parts: Sequence[Quantized]) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Loss and scalars of a position's parts: their means, so that weights mean the same for any
    number of parts."""
    mean = lambda *xs: jnp.mean(jnp.stack(xs))  # noqa: E731
    return jax.tree.map(mean, *[(part.loss, part.scalars) for part in parts])
