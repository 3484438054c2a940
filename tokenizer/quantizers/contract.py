"""What every quantizer promises; tests/tokenizer/test_quantizers.py holds all of them to it."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """`values` in [-1, 1] pass their gradient straight through to the input; `loss` is the
    quantizer's own term."""

    values: Float[Array, "B y x Z"]
    codes: Int[Array, "B y x Q"]
    loss: Float[Array, ""]


@runtime_checkable
class Quantizer(Protocol):
    """`num_codes` Q codes a position, each one of `codebook_size` V; `width` Z channels in."""

    num_codes: int
    codebook_size: int
    width: int

    def quantize(self, z: Float[Array, "B y x Z"]) -> Quantized:
        """Codes of `z` and the values they stand for."""
        ...

    def lookup(self, codes: Int[Array, "B y x Q"]) -> Float[Array, "B y x Z"]:
        """The same values from integers alone."""
        ...
