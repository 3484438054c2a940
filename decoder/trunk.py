"""The blocks of a decoder, with what training does to them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from layers.attention import Cache
from layers.axes import constrain
from layers.block import Block, BlockConfig, Dropout, Layers, Stack
from layers.kernels import packs
from layers.masks import Mask, Packing
from layers.native import step as native


class Trunk(Stack):
    """A stack of blocks that thins its updates when it is given a key, and keeps of the forward
    pass what `remat` says (`layers.block.REMATS`)."""

    def __init__(self, config: BlockConfig, *, dropout: float, remat: str, rngs: nnx.Rngs) -> None:
        make = lambda r: Block(config, rngs=r)  # noqa: E731
        super().__init__(make, config.num_layers, rngs=rngs, dtype=config.dtype)
        self.config = config
        self.dropout = dropout
        self.remat = remat

    def __call__(
        self,
        tokens: Float[Array, "B T D"],
        turn: tuple[Array, Array],
        mask: Mask | Bool[Array, "#B 1 #T T"],
        *,
        key: Array | None = None,
    ) -> Float[Array, "B T D"]:
        """The layers over all tokens. Without a key nothing is random."""
        keys = None
        if key is not None and self.dropout:
            keys = jax.random.split(key, self.config.num_layers)

        B, T = tokens.shape[:2]
        packing, heads = None, (self.config.num_heads, self.config.head_size)
        if isinstance(mask, Mask) and packs((B, T, *heads), self.config.dtype, mask):
            packing = Packing.of(mask, T)
            cos, sin = turn
            tokens, turn = packing.pack(tokens), (packing.pack(cos), packing.pack(sin))
            mask = dataclasses.replace(mask, packed=True)

        def layer(block: Block, x: Array, own: Any) -> tuple[Array, Any]:
            dropout = None if own is None else Dropout(self.dropout, own)
            return block(x, turn, mask, dropout=dropout)

        found, _ = self.scan(layer, constrain(tokens, "BTD"), keys, remat=self.remat)
        return found if packing is None else packing.unpack(found)

    def go_on(
        self,
        tokens: Float[Array, "B T D"],
        turn: tuple[Array, Array],
        mask: Mask | Bool[Array, "#B 1 #T S"],
        cache: Cache,
        at: Int[Array, " B"] | Int[Array, ""],
        *,
        layers: Layers | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """The layers over tokens that a cache joins to earlier ones, put there at `at`. A loop over
        tokens has the `layers` apart already (`unstacked`)."""
        step = lambda block, x, kept: block(x, turn, mask, cache=kept, at=at)  # noqa: E731
        return self.fold(step, constrain(tokens, "BTD"), cache, layers=layers)

    def packed(self, layers: Layers, cache: Cache, num_rows: int) -> tuple[Layers, Cache]:
        """Layers and cache as a loop over steps of so many tokens in all is to have them: on a CPU
        in panels, where that is faster (`layers.native`)."""
        return native.packed(self.layer, layers, cache, num_rows, self.config)
