"""What stands before the codes of a decoder of captions: text features, as LlamaGen's GPT has them.

A caption's features fill the last of its places, so that the one that the first code follows is its
last. `caption_tokens` says how many there are; nobody looks at the places before them, and each
other place only at those before it.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from decoder.sight import raster
from layers.einsum import Einsum

CAPTION = ("captions", "caption_tokens", "captioned")
"""The conditions: features float [B S I], how many of them are there (the last) int [B], and
whether they are told bool [B]; a caption that is not told has a learnt one in its places."""


class Captions(nnx.Module):
    """down(gelu(up(features))) with the tanh of the original GELU (Hendrycks & Gimpel 2016), by
    itself at each place, without biases."""

    def __init__(self, shape: tuple[int, int], width: int, *, rngs: nnx.Rngs) -> None:
        """`shape` is that of a caption's features: places, then features of one."""
        sizes = {"I": shape[1], "F": width, "D": width}
        nothing = jax.random.normal(rngs.params(), shape) * shape[1] ** -0.5
        self.nothing = nnx.Param(nothing, axes="TI", summed="")
        self.up = Einsum("BTI,IF->BTF", sizes, rngs=rngs)
        self.down = Einsum("BTF,FD->BTD", sizes, rngs=rngs)

    def __call__(self, told: Mapping[str, Array], places: slice) -> Float[Array, "B T D"]:
        """Tokens of some of the places."""
        features = told["captions"][:, places]
        features = jnp.where(
            told["captioned"][:, None, None], features, self.nothing[...][places]
        ).astype(self.nothing[...].dtype)
        return self.down(jax.nn.gelu(self.up(features), approximate=True))


def sight_of_captions(
    num_there: Int[Array, " B"], *, num_places: int, num_tokens: int
) -> Bool[Array, "B 1 T T"]:
    """True where a query may look among `num_tokens`, of which the first `num_places` are a
    caption's: at itself, and at what is there before it."""
    keys = jnp.arange(num_tokens)
    there = keys >= num_places - num_there[:, None]
    seen = there[:, None, :] & raster(num_tokens)
    return (seen | jnp.eye(num_tokens, dtype=bool))[:, None]
