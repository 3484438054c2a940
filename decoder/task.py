"""Training the decoder: codes under a mask, or each after those before in some order, given the
blueprint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from decoder import galleys, sheets
from decoder.captions import CAPTION
from decoder.certainty import certain
from decoder.conditioning import CONDITIONS, LOCKS, ConditioningConfig, condition
from decoder.config import DecoderConfig
from decoder.dropping import drop
from decoder.model import Decoder
from decoder.sight import Order
from layers.losses import cross_entropy

# folded into a step's key; the draws of a mask use up 0 to 2, that of an order 0
_ORDER, _DROP, _DROPOUT = 0, 3, 4


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


def draw_order(key: Array, shape: tuple[int, int]) -> Int[Array, "B T"]:
    """The rank of each position in an order of its page's own, all orders alike."""
    return jnp.argsort(jax.random.uniform(key, shape), axis=1)


@dataclasses.dataclass(frozen=True)
class DecoderTask:
    """`contract` is the token contract of the codes it learns; `whole_mask` the share of pages
    hidden whole (of no matter to a causal or random decoder, which learns every code of every
    page).

    `drop_blueprint` and `drop_glyphs` are the shares of pages that are told nothing of the one or
    of the other (`decoder.dropping`), drawn apart: guidance by both needs enough of their product.
    """

    model: DecoderConfig
    contract: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    whole_mask: float = 0.6
    drop_blueprint: float = 0.0
    drop_glyphs: float = 0.0

    @property
    def conditions(self) -> tuple[str, ...]:
        """What a batch has beside its codes."""
        if self.model.num_classes:
            return ("classes",)
        if self.model.caption_width:
            return CAPTION
        return CONDITIONS + (LOCKS if self.model.conditioning.lock_regions else ())

    def init(self, rngs: nnx.Rngs) -> Decoder:
        """A fresh decoder."""
        return Decoder(self.model, rngs=rngs)

    def loss(
        self, model: Decoder, batch: Mapping[str, Array], key: Array
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean negative log-likelihood in nats of a hidden code, all Q factors alike; of a causal
        or random decoder every code is hidden from its own position, and the order drawn anew for
        each page."""
        codes = batch["codes"].astype(jnp.int32)
        B, y, x, _ = codes.shape
        masked, order = jnp.ones((B, y, x), bool), None
        if self.model.objective == "masked":
            masked = draw_mask(key, masked.shape, self.whole_mask)
        if self.model.objective == "random":
            order = Order(draw_order(jax.random.fold_in(key, _ORDER), (B, y * x)))
        given = self._told({name: batch[name] for name in self.conditions}, key, B)
        own = jax.random.fold_in(key, _DROPOUT)
        logits = model(codes, masked, given, order=order, key=own)
        hidden = jnp.broadcast_to(masked[..., None], codes.shape)
        loss, accuracy = cross_entropy(logits, codes, hidden)
        return loss, {"accuracy": accuracy, "weight": hidden.sum(dtype=jnp.float32)}

    def _told(self, given: Mapping[str, Array], key: Array, num_rows: int) -> Mapping[str, Array]:
        """The conditions of a step, with some rows' left out."""
        if not (self.drop_blueprint or self.drop_glyphs):
            return given
        draws = jax.random.uniform(jax.random.fold_in(key, _DROP), (2, num_rows))
        gone = draws < jnp.array([[self.drop_blueprint], [self.drop_glyphs]])
        return drop(given, blueprint=gone[0], glyphs=gone[1])

    def group(self, path: tuple[str, ...]) -> str:
        """Matrices of trunk and depth transformer are `hidden`; what reads and writes codes and
        letters is `rest`."""
        inner = "blocks" in path[:2] or path[0] in ("mix_up", "mix_down")
        return "hidden" if path[-1] == "kernel" and inner else "rest"

    def probes(self) -> Mapping[str, Callable[..., Any]]:
        """Of any decoder `logits` (codes, masked, conditions) -> [B y x Q V] and `unconditional`
        conditions -> those without what training left out at times, and `certain` conditions ->
        where a blueprint leaves nothing open [B y x].

        Those that print take a `pick` (`decoder.depth.Pick`), and have codes and the logits they
        were picked from: of a masked decoder `write` (codes, masked, conditions, pick); of a causal
        one `prefill` (codes, conditions, storage) -> sheet and `step` (at, codes before, sheet,
        pick), which has a sheet too, as has `look_ahead` for many positions, and `guess` (codes,
        conditions) -> codes that are likely beforehand; of a random one `write_in_order` (codes,
        rank, num_seen,
        conditions, pick), by a whole forward, and `lay_out` and `advance`, with a cache
        (`decoder.galleys`)."""

        def unconditional(model: Decoder, given: Mapping[str, Array]) -> Mapping[str, Array]:
            rows = next(iter(given.values())).shape[0]
            blueprint, glyphs = (
                jnp.full((rows,), rate > 0) for rate in (self.drop_blueprint, self.drop_glyphs)
            )
            return drop(given, blueprint=blueprint, glyphs=glyphs)

        def write_in_order(
            model: Decoder, codes: Array, rank: Array, num_seen: Array, given: Any, pick: Any
        ) -> tuple[Array, Array]:
            masked = jnp.ones(codes.shape[:3], bool)
            return model.write(codes, masked, given, pick, order=Order(rank, num_seen))

        def guess(model: Decoder, codes: Array, given: Mapping[str, Array]) -> Array:
            shown = given["glyph_codes"] if model.config.copies else jnp.zeros_like(codes)
            return shown.astype(codes.dtype)

        of_all: dict[str, Callable[..., Any]] = {
            "logits": lambda model, codes, masked, given: model(codes, masked, given),
            "unconditional": unconditional,
            "certain": lambda model, given: certain(given),
        }
        of_objective: dict[str, dict[str, Callable[..., Any]]] = {
            "masked": {"write": lambda model, *arrays: model.write(*arrays)},
            "causal": {
                "prefill": sheets.prefill,
                "step": sheets.step,
                "look_ahead": sheets.look_ahead,
                "guess": guess,
            },
            "random": {
                "write_in_order": write_in_order,
                "lay_out": galleys.lay_out,
                "advance": galleys.advance,
            },
        }
        return of_all | of_objective[self.model.objective]
