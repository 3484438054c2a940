"""A table of code vectors, what VQ and IBQ share: its config, nearest rows, and how rows are drawn
from a batch.

Every reduction runs over the whole batch, so under `jax.jit` with automatic mesh axes it is global:
all devices compute the same start, statistics and restarts.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tokenizer.quantizers.contract import unit

KMEANS_STEPS = 8


@dataclasses.dataclass(frozen=True)
class CodebookConfig:
    """`size` V vectors of `width` Z channels, under `cosine` compared and used at length 1.

    `learning` is `gradient` (the rows are parameters) or `ema` (means of what they were chosen
    for, over about 1 / (1 - `decay`) batches). `decay` also averages each code's share of the
    positions; a code whose share is under `restart_below` / V is drawn anew (0 = never).
    `commitment` is beta, the pull of the encoder to its codes. `rotation` replaces the
    straight-through gradient by the rotation trick. `temperature` divides IBQ's logits, `entropy`
    weighs its entropy terms.
    """

    size: int = 1024
    width: int = 8
    cosine: bool = True
    learning: str = "gradient"
    commitment: float = 0.25
    decay: float = 0.99
    restart_below: float = 0.1
    rotation: bool = False
    temperature: float = 0.1
    entropy: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 2 or self.width < 1:
            raise ValueError(
                f"quantizer.codebook has size {self.size} and width {self.width}; "
                "give at least 2 vectors of at least 1 channel"
            )
        if self.learning not in ("gradient", "ema"):
            raise ValueError(
                f"quantizer.codebook.learning {self.learning!r} is not known; "
                "there are: gradient, ema"
            )
        if not 0 <= self.decay < 1 or not 0 <= self.restart_below < 1:
            raise ValueError(
                f"quantizer.codebook.decay {self.decay} and restart_below {self.restart_below} "
                "must be at least 0 and less than 1"
            )
        if self.temperature <= 0:
            raise ValueError(
                f"quantizer.codebook.temperature {self.temperature} must be more than 0"
            )


def nearest(z: Float[Array, "B y x Z"], table: Float[Array, "V Z"]) -> Int[Array, "B y x"]:
    """Row of least Euclidean distance, the first of equals: argmin |z - e|^2 = argmax (z e -
    |e|^2 / 2)."""
    offset = jnp.square(table).sum(axis=-1) / 2
    return jnp.argmax(affinity(z, table) - offset, axis=-1).astype(jnp.int32)


def affinity(z: Float[Array, "B y x Z"], table: Float[Array, "V Z"]) -> Float[Array, "B y x V"]:
    """Dot products with every row, in full float32: a TPU's default would swap near codes."""
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("ByxZ,VZ->ByxV", z, table, precision=highest)


def gathered(
    z: Float[Array, "B y x Z"], codes: Int[Array, "B y x"], size: int
) -> tuple[Float[Array, " V"], Float[Array, "V Z"]]:
    """Each code's share of the positions, and the sum of its vectors over the number of positions.

    A product with one-hot rows, since a scatter-add's order is not fixed on a GPU.
    """
    chosen = jax.nn.one_hot(codes, size, dtype=z.dtype)
    highest = jax.lax.Precision.HIGHEST
    sums = jnp.einsum("ByxV,ByxZ->VZ", chosen, z, precision=highest)
    return chosen.mean(axis=(0, 1, 2)), sums / codes.size


def drawn(key: Array, z: Float[Array, "B y x Z"], size: int) -> Float[Array, "V Z"]:
    """Vectors of the batch at random, each as often as the others as far as the count allows."""
    rows = z.reshape(-1, z.shape[-1])
    order = jax.random.permutation(key, rows.shape[0])
    return rows[order[jnp.arange(size) % rows.shape[0]]]


def kmeans(
    key: Array, z: Float[Array, "B y x Z"], size: int, *, cosine: bool
) -> Float[Array, "V Z"]:
    """Lloyd's algorithm from vectors of the batch, `KMEANS_STEPS` steps; a row without vectors
    stays. Under `cosine` (spherical k-means, Dhillon & Modha 2001) rows keep length 1."""

    def step(_: Int[Array, ""], table: Float[Array, "V Z"]) -> Float[Array, "V Z"]:
        share, sums = gathered(z, nearest(z, table), size)
        tiny = 0.5 / (z.size // z.shape[-1])
        means = jnp.where(share[:, None] > 0, sums / jnp.maximum(share, tiny)[:, None], table)
        return unit(means) if cosine else means

    return jax.lax.fori_loop(0, KMEANS_STEPS, step, drawn(key, z, size))
