"""What a tokenizer's loss looks at where there is text: edges of glyphs, and what a frozen
recogniser sees."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tokenizer.lines import inside
from tokenizer.recogniser import Recogniser


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The run of the `recogniser` whose features `losses.text_features` compares ("" for none), and
    how many lines of a page a batch has room for."""

    recogniser: str = ""
    max_lines: int = 6


def edges(error: Float[Array, "B Y X C"], boxes: Float[Array, "B lines 4"]) -> Float[Array, ""]:
    """The mean absolute difference of neighbouring pixels' errors, rightwards and downwards, inside
    the boxes: L1 between the two pictures' gradients. 0 where there is no text.

    RDA (arXiv 2606.01911) weighs Sobel edges of the whole picture; a plain difference is as sharp
    as a stroke of small type is thin.
    """
    there = inside(boxes, error.shape[1:3])[..., None]
    both = (there[:, :, 1:] & there[:, :, :-1]), (there[:, 1:] & there[:, :-1])
    steps = jnp.abs(jnp.diff(error, axis=2)), jnp.abs(jnp.diff(error, axis=1))
    total = sum((step * mask).sum() for step, mask in zip(steps, both, strict=True))
    count = sum(mask.sum() for mask in both) * error.shape[-1]
    return total / jnp.maximum(count, 1)


def features(
    recogniser: Recogniser,
    page: Float[Array, "B Y X C"],
    painted: Float[Array, "B Y X C"],
    boxes: Float[Array, "B lines 4"],
) -> Float[Array, ""]:
    """1 - cosine of what the recogniser makes of page and painting, averaged over its layers and
    the strips that hold text; 0 where there is none.

    The text perceptual loss of InsightTok (arXiv 2605.14333), with the cropped lines of exact boxes
    where it detects them, and our own recogniser, unknown to the reader that evaluates.
    """
    wanted = jax.lax.stop_gradient(recogniser(page, boxes))
    found = recogniser(painted, boxes)
    unit = lambda x: x * jax.lax.rsqrt(jnp.square(x).sum(axis=-1, keepdims=True) + 1e-6)  # noqa: E731
    apart = 0.5 * jnp.square(unit(found.layers) - unit(wanted.layers)).sum(axis=-1)
    weight = wanted.filled.astype(jnp.float32)
    count = jnp.maximum(weight.sum() * len(apart), 1.0)
    return (apart * weight[None]).sum() / count
