"""Training the decoder: codes under a mask, given the blueprint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from decoder.conditioning import ConditioningConfig, condition
from decoder.model import Decoder, DecoderConfig
from layers.losses import cross_entropy

CONDITIONS = ("regions", "glyphs", "glyph_codes", "letters", "letter_places", "letter_styles")


def example(record: Mapping[str, Any], config: ConditioningConfig) -> dict[str, np.ndarray]:
    """A record of a code cache (`codes`, `glyph_codes`, `blueprint`) as arrays of the batch."""
    codes = {name: record[name] for name in ("codes", "glyph_codes")}
    return {**codes, **condition(record["blueprint"], config)}


def draw_mask(key: Array, shape: tuple[int, int, int], whole: float) -> Bool[Array, "B y x"]:
    """Which positions are hidden: all of them with probability `whole`, else a cosine-drawn share.

    The share is cos(pi u / 2), u uniform (Chang et al. 2022, section 3.1).
    """
    of_row, of_share, of_position = jax.random.split(key, 3)
    rows = (shape[0], 1, 1)
    share = jnp.cos(0.5 * jnp.pi * jax.random.uniform(of_share, rows))
    share = jnp.where(jax.random.uniform(of_row, rows) < whole, 1.0, share)
    return jax.random.uniform(of_position, shape) < share


@dataclasses.dataclass(frozen=True)
class DecoderTask:
    """`contract` is the token contract of the codes it learns; `whole_mask` the share of pages
    hidden whole."""

    model: DecoderConfig
    contract: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    whole_mask: float = 0.6

    def init(self, rngs: nnx.Rngs) -> Decoder:
        """A fresh decoder."""
        return Decoder(self.model, rngs=rngs)

    def loss(
        self, model: Decoder, batch: Mapping[str, Array], key: Array
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean negative log-likelihood in nats of a hidden code, all Q factors alike."""
        codes = batch["codes"].astype(jnp.int32)
        masked = draw_mask(key, codes.shape[:3], self.whole_mask)
        logits = model(codes, masked, {name: batch[name] for name in CONDITIONS})
        hidden = jnp.broadcast_to(masked[..., None], codes.shape)
        loss, accuracy = cross_entropy(logits, codes, hidden)
        return loss, {"accuracy": accuracy}

    def group(self, path: tuple[str, ...]) -> str:
        """Matrices of the trunk are `hidden`; what reads and writes codes and letters is `rest`."""
        return (
            "hidden"
            if path[-1] == "kernel" and path[0] in ("blocks", "mix_up", "mix_down")
            else "rest"
        )

    def probes(self) -> Mapping[str, Callable[..., Any]]:
        """`logits` (codes, masked, conditions) -> [B y x Q V]."""
        return {"logits": lambda model, codes, masked, given: model(codes, masked, given)}
