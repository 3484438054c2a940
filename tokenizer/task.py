"""Training the tokenizer: what the loop needs to know."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from layers.losses import reconstruction
from tokenizer.critic import Critic, CriticConfig, contest
from tokenizer.model import Tokenizer, TokenizerConfig
from tokenizer.perceptual import Perceptual
from tokenizer.pixels import as_bytes, as_float
from tokenizer.recogniser import Frozen
from tokenizer.text_loss import edges, features


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the reconstruction terms over pixels in [-1, 1].

    `text_edges` and `text_features` weigh the terms of `tokenizer/text_loss.py` in the boxes of the
    lines; where both are 0, batches need no boxes. `perceptual` weighs LPIPS
    (`tokenizer/perceptual.py`).
    """

    l1: float = 1.0
    l2: float = 0.0
    charbonnier: float = 0.0
    text_edges: float = 0.0
    text_features: float = 0.0
    perceptual: float = 0.0

    @property
    def has_text(self) -> bool:
        """Does a batch need the boxes of its lines?"""
        return bool(self.text_edges or self.text_features)


def perplexity(codes: Int[Array, "B y x Q"], codebook_size: int) -> Float[Array, ""]:
    """exp(entropy) of each code's use in this batch, averaged over Q."""
    counts = jax.nn.one_hot(codes, codebook_size).mean(axis=(0, 1, 2))
    return jnp.exp(-(counts * jnp.log(counts + 1e-10)).sum(axis=-1)).mean()


@dataclasses.dataclass(frozen=True)
class TokenizerTask:
    """Reconstruct pages. A batch holds `pixels` uint8 [B Y X C], and `line_boxes` [B lines 4] for a
    text loss, whose features are those of the frozen `recogniser`. Without a `perceptual` network
    that loss is off."""

    model: TokenizerConfig
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    critic: CriticConfig = dataclasses.field(default_factory=CriticConfig)
    recogniser: Frozen | None = None
    perceptual: Perceptual | None = None

    def init(self, rngs: nnx.Rngs) -> Tokenizer:
        """A fresh tokenizer, and its critic if there is one."""
        model = Tokenizer(self.model, rngs=rngs)
        if self.critic.weight:
            model.critic = Critic(self.critic, self.model.backbone.channels, rngs=rngs)
        return model

    def loss(
        self, model: Tokenizer, batch: Mapping[str, Array], key: Array
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Reconstruction plus the quantizer's own term, plus both players' of the critic; `key`
        decides the quantizer's starts and restarts.

        All are means over rows, so there is no `weight`. Of microbatches (see
        `train.step.gradients_of`) the losses by text count each one's boxes alike however many
        it has, the critic's adaptive weight is each one's own, and codebooks and anchors average
        over microbatches, the first of which starts a codebook.
        """
        pixels = as_float(batch["pixels"])
        out = model(pixels, key=key)
        terms = self.terms(pixels, batch)
        weights = dataclasses.asdict(self.losses)
        plain = {name: weights[name] for name in ("l1", "l2", "charbonnier")}

        def miss(painted: Float[Array, "B Y X C"]) -> Float[Array, ""]:
            others = sum(weights[name] * term(painted) for name, term in terms.items())
            return reconstruction(painted - pixels, **plain) + others

        loss = miss(out.pixels) + out.quantized.loss
        codes = out.quantized.codes
        scalars = {
            "psnr_db": 10 * jnp.log10(4.0 / jnp.mean(jnp.square(out.pixels - pixels))),
            "perplexity": perplexity(codes, model.quantizer.codebook_size),
            **{f"quantizer/{name}": x for name, x in out.quantized.scalars.items()},
            **{name: term(out.pixels) for name, term in terms.items()},
        }
        if self.critic.weight:
            added, played = contest(model, out, pixels, miss)
            loss, scalars = loss + added, {**scalars, **played}
        return loss, scalars

    def terms(
        self, pixels: Float[Array, "B Y X C"], batch: Mapping[str, Array]
    ) -> dict[str, Callable[[Float[Array, "B Y X C"]], Float[Array, ""]]]:
        """The losses by text and by perception that have a weight, by name, as functions of the
        painted page.

        Raises `ValueError` for features without a recogniser.
        """
        terms: dict[str, Callable[[Float[Array, "B Y X C"]], Float[Array, ""]]] = {}
        if self.losses.perceptual and self.perceptual is not None:
            terms["perceptual"] = functools.partial(self.perceptual, pixels)
        if self.losses.text_edges:
            terms["text_edges"] = lambda painted: edges(painted - pixels, batch["line_boxes"])
        if self.losses.text_features:
            if self.recogniser is None:
                raise ValueError(
                    "losses.text_features needs a trained recogniser: give config.text.recogniser "
                    "the folder of its run"
                )
            recogniser, boxes = self.recogniser.build(), batch["line_boxes"]
            terms["text_features"] = lambda painted: features(recogniser, pixels, painted, boxes)
        return terms

    def group(self, path: tuple[str, ...]) -> str:
        """The critic's parameters are `critic`; of the others matrices and convolutions are
        `hidden`; scales, biases and the quantizer's codebooks `rest`."""
        if path[0] == "critic":
            return "critic"
        return "hidden" if path[-1] == "kernel" else "rest"

    def probes(self) -> Mapping[str, Callable[..., Any]]:
        """`encode` pixels -> codes, `decode` codes -> pixels, `reconstruct` pixels -> pixels;
        pixels are uint8."""
        return {
            "encode": lambda model, pixels: model.encode(as_float(pixels)),
            "decode": lambda model, codes: as_bytes(model.decode(codes)),
            "codebook_size": lambda model: model.quantizer.codebook_size,
            "reconstruct": lambda model, pixels: as_bytes(model(as_float(pixels)).pixels),
        }
