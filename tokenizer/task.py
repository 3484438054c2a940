"""Training the tokenizer: what the loop needs to know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from layers.losses import reconstruction
from tokenizer.critic import Critic, CriticConfig, contest
from tokenizer.model import Tokenizer, TokenizerConfig


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the reconstruction terms over pixels in [-1, 1]."""

    l1: float = 1.0
    l2: float = 0.0
    charbonnier: float = 0.0


def as_float(pixels: UInt8[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
    """0..255 to [-1, 1]."""
    return pixels.astype(jnp.float32) / 127.5 - 1.0


def as_bytes(pixels: Float[Array, "B Y X C"]) -> UInt8[Array, "B Y X C"]:
    """[-1, 1] to 0..255, rounded."""
    return jnp.round((pixels.clip(-1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)


def perplexity(codes: Int[Array, "B y x Q"], codebook_size: int) -> Float[Array, ""]:
    """exp(entropy) of each code's use in this batch, averaged over Q."""
    counts = jax.nn.one_hot(codes, codebook_size).mean(axis=(0, 1, 2))
    return jnp.exp(-(counts * jnp.log(counts + 1e-10)).sum(axis=-1)).mean()


@dataclasses.dataclass(frozen=True)
class TokenizerTask:
    """Reconstruct pages. A batch holds `pixels` uint8 [B Y X C]."""

    model: TokenizerConfig
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    critic: CriticConfig = dataclasses.field(default_factory=CriticConfig)

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
        decides the quantizer's starts and restarts."""
        pixels = as_float(batch["pixels"])
        out = model(pixels, key=key)
        weights = dataclasses.asdict(self.losses)
        miss = lambda painted: reconstruction(painted - pixels, **weights)  # noqa: E731
        loss = miss(out.pixels) + out.quantized.loss
        codes = out.quantized.codes
        scalars = {
            "psnr_db": 10 * jnp.log10(4.0 / jnp.mean(jnp.square(out.pixels - pixels))),
            "perplexity": perplexity(codes, model.quantizer.codebook_size),
            **{f"quantizer/{name}": x for name, x in out.quantized.scalars.items()},
        }
        if self.critic.weight:
            added, played = contest(model, out, pixels, miss)
            loss, scalars = loss + added, {**scalars, **played}
        return loss, scalars

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
