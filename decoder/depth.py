"""The depth transformer: the codes of a position one after another."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from decoder.trunk import Trunk
from layers.block import BlockConfig
from layers.einsum import Einsum
from layers.embedding import lookup
from layers.masks import Mask
from layers.norm import RMSNorm
from layers.rope import rotations

Pick = Callable[..., Int[Array, "B T Q"]]
"""(logits [B T Q V], depth) -> codes of their shape. Codes that come at once come in one call,
without a depth."""


class Depth(nnx.Module):
    """A small causal transformer over a position's Q codes (Lee et al. 2022, arXiv 2203.01941,
    section 3.2.2).

    The token at depth q is the position's feature, the depth's own vector and the sum of what the
    codes before q are embedded to; what leaves it there says code q. In the paper the feature
    stands in the first token alone. Ours is in each, since our codes are as a rule not residuals of
    one another but channels side by side, which need the page more than each other. Depths are
    turned by their number.

    Positions are rows here: nothing passes from one to another.
    """

    def __init__(
        self, config: BlockConfig, sizes: dict[str, int], *, trained: dict, rngs: nnx.Rngs
    ) -> None:
        """`sizes` are the trunk's width D and the codes' Q and V; `trained` what `Trunk` takes."""
        width, self.num_codes, self.codebook_size = config.width, sizes["Q"], sizes["V"]
        self.position_in = Einsum("BTI,ID->BTD", {"I": sizes["D"], "D": width}, rngs=rngs)
        self.codes_in = Einsum("BTQV,QVD->BTQD", {**sizes, "D": width}, rngs=rngs)
        vectors = jax.random.normal(rngs.params(), (self.num_codes, width)) * 0.1
        self.depth_vectors = nnx.Param(vectors, axes="QD", summed="")
        self.blocks = Trunk(config, **trained, rngs=rngs)
        self.norm = RMSNorm(width)

    def __call__(
        self,
        features: Float[Array, "B T D"],
        codes: Int[Array, "B T Q"],
        *,
        key: Array | None = None,
    ) -> Float[Array, "B T Q _"]:
        """What says each code, given the true ones before it, all depths at once."""
        B, T, Q = codes.shape
        told = self.codes_in(jax.nn.one_hot(codes, self.codebook_size))
        before = jnp.cumsum(told, axis=2) - told
        tokens = self.position_in(features)[:, :, None] + self.depth_vectors[...] + before
        rows = tokens.reshape(B * T, Q, -1)
        turn = self._turn(jnp.arange(Q), B * T)
        out = self.blocks(rows, turn, Mask(causal=True), key=key)
        return self.norm(out).reshape(tokens.shape)

    def write(
        self,
        features: Float[Array, "B T D"],
        pick: Pick,
        logits_of: Callable[[Array, Int[Array, ""]], Float[Array, "B T 1 V"]],
    ) -> tuple[Int[Array, "B T Q"], Float[Array, "B T Q V"]]:
        """The codes that `pick` chooses, each told to those after it, and the logits it chose from.

        `logits_of` has the logits of one depth from what says its code. Keys and values are kept:
        doing every depth anew would cost Q times as much, and all positions are printed together.
        """
        (B, T), Q = features.shape[:2], self.num_codes
        position = self.position_in(features)

        layers = self.blocks.unstacked()

        def one(carry: tuple, depth: Int[Array, ""]) -> tuple[tuple, tuple[Array, Array]]:
            before, cache = carry
            rows = (position + self.depth_vectors[...][depth] + before).reshape(B * T, 1, -1)
            mask = (jnp.arange(Q) <= depth)[None, None, None]
            turn = self._turn(depth[None], B * T)
            out, cache = self.blocks.go_on(rows, turn, mask, cache, depth, layers=layers)
            logits = logits_of(self.norm(out).reshape(B, T, 1, -1), depth)
            codes = pick(logits, depth)[..., 0]
            told = lookup(self.codes_in.kernel[...][depth], codes)
            before = before + told.astype(before.dtype)
            return (before, cache), (codes, logits[..., 0, :])

        start = jnp.zeros_like(position), self.blocks.config.empty_cache(B * T, Q)
        _, (codes, logits) = jax.lax.scan(one, start, jnp.arange(Q))
        return jnp.moveaxis(codes, 0, 2), jnp.moveaxis(logits, 0, 2)

    def _turn(self, depths: Int[Array, " Q"], num_rows: int) -> tuple[Array, Array]:
        places = 1.0 + depths.astype(jnp.float32)[None, :, None]
        places = jnp.broadcast_to(places, (num_rows, *places.shape[1:]))
        return rotations(places, self.blocks.config.head_size)
