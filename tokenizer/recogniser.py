"""A small line recogniser of our own, and training it: cropped lines to bytes, by CTC.

It lies in this package because its one use is a loss of the tokenizer (`tokenizer/text_loss.py`);
it is not called a reader, because the readers of `evals/` are those that evaluate, and it never
does. A strip of a line is a few columns; strips see their neighbours, block by block, and each says
a byte or nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from layers.axes import constrain
from layers.block import Stack
from layers.einsum import Einsum
from layers.norm import RMSNorm
from tokenizer.lines import (
    BLANK,
    crop,
    filled_px,
    jittered,
    line_boxes,
    line_bytes,
    steps_needed,
)
from tokenizer.pixels import as_float

SYMBOLS = 257  # the blank and every byte


@dataclasses.dataclass(frozen=True)
class RecogniserConfig:
    """Lines are seen at `height_px` rows and at most `width_px` columns, in strips of `strip_px`;
    `max_lines` of a page and `max_bytes` of a line are what a batch has room for.

    So that typefaces which training never saw are read too, training stretches and shifts lines by
    `jitter` (see `tokenizer.lines.jittered`) and makes their strokes up to `stroke_jitter` of the
    way to one pixel thinner or thicker; 0 leaves lines as they are.
    """

    height_px: int = 24
    width_px: int = 156
    strip_px: int = 3
    width: int = 128
    hidden: int = 256
    num_blocks: int = 3
    max_lines: int = 6
    max_bytes: int = 20
    jitter: float = 0.0
    stroke_jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.width_px % self.strip_px:
            raise ValueError(
                f"width_px {self.width_px} is not a multiple of strip_px {self.strip_px}; "
                "change one of them"
            )
        if self.jitter < 0 or not 0 <= self.stroke_jitter <= 1:
            raise ValueError(
                f"jitter {self.jitter} must be at least 0, and stroke_jitter {self.stroke_jitter} "
                "from 0 to 1"
            )

    @property
    def num_strips(self) -> int:
        """Steps of CTC."""
        return self.width_px // self.strip_px


def example(record: Mapping[str, Any], config: RecogniserConfig) -> dict[str, np.ndarray]:
    """A record's `pixels`, `line_boxes` and `line_bytes`.

    Raises `ValueError` naming the key to raise when the page has too many lines, or a line too many
    bytes for the batch or for the strips.
    """
    blueprint = record["blueprint"]
    boxes = line_boxes(blueprint, config.max_lines)
    for string in (string for text in blueprint.texts for string in text.lines):
        if steps_needed(string) > config.num_strips:
            raise ValueError(
                f"the line {string!r} takes {steps_needed(string)} strips and there are "
                f"{config.num_strips}: raise config.model.width_px or lower config.model.strip_px"
            )
    targets = line_bytes(blueprint, config.max_lines, config.max_bytes)
    return {"pixels": record["pixels"], "line_boxes": boxes, "line_bytes": targets}


def ink(
    lines: Float[Array, "B Y X C"], filled: Bool[Array, "B X"], *, eps: float = 1e-3
) -> Float[Array, "B Y X"]:
    """How far each pixel lies from the line's ground towards its ink, at unit root mean square.

    The ground is the mean of the topmost row, which is bare; the direction is that from the ground
    to the mean of the line. So dark on light and light on dark look alike, in any colours.
    """
    weight = filled[:, None, :, None].astype(lines.dtype)
    columns = jnp.maximum(weight.sum(axis=(1, 2, 3)), 1.0)[:, None, None, None]
    ground = (lines[:, :1] * weight).sum(axis=2, keepdims=True) / columns
    far = (lines - ground) * weight
    towards = far.sum(axis=(1, 2), keepdims=True) / (columns * lines.shape[1])
    along = (far * towards).sum(axis=-1)
    square = jnp.square(along).sum(axis=(1, 2), keepdims=True)
    mean = square / (columns[..., 0] * lines.shape[1])
    length = jnp.square(towards).sum(axis=-1)
    return along * jax.lax.rsqrt(mean + eps * length + eps**3)


def reweighted(
    key: Array, lines: Float[Array, "B Y X"], rate: float, *, eps: float = 1e-6
) -> Float[Array, "B Y X"]:
    """Ink with strokes thinner or thicker by up to `rate` of the way to the least or the greatest
    of each pixel's neighbours, at unit root mean square again."""
    square = (1, 3, 3), (1, 1, 1), "SAME"
    thick = jax.lax.reduce_window(lines, -jnp.inf, jax.lax.max, *square) - lines
    thin = jax.lax.reduce_window(lines, jnp.inf, jax.lax.min, *square) - lines
    by = rate * jax.random.uniform(key, (len(lines), 1, 1), minval=-1.0, maxval=1.0)
    changed = lines + jax.nn.relu(by) * thick + jax.nn.relu(-by) * thin
    return changed * jax.lax.rsqrt(jnp.square(changed).mean(axis=(1, 2), keepdims=True) + eps)


def with_neighbours(x: Float[Array, "B T D"]) -> Float[Array, "B T I"]:
    """Each strip with the one before and the one behind (zeros past the ends)."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, :-2], x, padded[:, 2:]], axis=-1)


class StripBlock(nnx.Module):
    """x + one linear map of three neighbours, then x + down(silu(up(norm(x))))."""

    def __init__(self, sizes: dict[str, int], *, rngs: nnx.Rngs) -> None:
        self.mix_norm = RMSNorm(sizes["D"])
        self.mix = Einsum("BTI,ID->BTD", {**sizes, "I": 3 * sizes["D"]}, rngs=rngs, scale=0.5)
        self.norm = RMSNorm(sizes["D"])
        self.up = Einsum("BTD,DF->BTF", sizes, rngs=rngs)
        self.down = Einsum("BTF,FD->BTD", sizes, rngs=rngs, scale=0.5)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The updated strips."""
        x = constrain(x + self.mix(with_neighbours(self.mix_norm(x))), "BTD")
        return constrain(x + self.down(jax.nn.silu(self.up(self.norm(x)))), "BTD")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Seen:
    """Lines as they were seen: `layers` after each block, `logits` over the blank and the bytes,
    and which strips are `filled`."""

    layers: Float[Array, "L B lines T D"]
    logits: Float[Array, "B lines T V"]
    filled: Bool[Array, "B lines T"]


class Recogniser(nnx.Module):
    """Strips with their neighbours, `num_blocks` times mixed; no attention and no position, so what
    a strip says depends on a few letters around it alone."""

    def __init__(self, config: RecogniserConfig, *, rngs: nnx.Rngs) -> None:
        strip = config.height_px * config.strip_px + 1
        sizes = {"I": 3 * strip, "D": config.width, "F": config.hidden, "V": SYMBOLS}
        self.config = config
        self.stem = Einsum("BTI,ID->BTD", sizes, rngs=rngs)
        self.blocks = Stack(lambda r: StripBlock(sizes, rngs=r), config.num_blocks, rngs=rngs)
        self.norm = RMSNorm(config.width)
        self.head = Einsum("BTD,DV->BTV", sizes, rngs=rngs)

    def __call__(
        self,
        pixels: Float[Array, "B Y X C"],
        boxes: Float[Array, "B lines 4"],
        *,
        key: Array | None = None,
    ) -> Seen:
        """The lines of pages (float32 in [-1, 1]) in boxes; with a `key` as training jitters
        them."""
        config = self.config
        height, width, strip = config.height_px, config.width_px, config.strip_px
        B, count = boxes.shape[:2]
        stretch: Float[Array, "B lines"] | float = 1.0
        if key is not None and config.jitter:
            boxes, stretch = jittered(jax.random.fold_in(key, 0), boxes, config.jitter)
        lines = crop(pixels, boxes, height_px=height, width_px=width, stretch=stretch)
        lines = lines.reshape(B * count, height, width, -1)
        columns = filled_px(boxes, height, width, stretch=stretch).reshape(-1, 1)
        seen = ink(lines, jnp.arange(width) < columns)
        if key is not None and config.stroke_jitter:
            seen = reweighted(jax.random.fold_in(key, 1), seen, config.stroke_jitter)
        seen = seen.reshape(-1, height, config.num_strips, strip).transpose(0, 2, 1, 3)
        filled = jnp.arange(config.num_strips) * strip < columns
        # Never all zeros, where a norm's gradient is a thousandfold.
        mark = jnp.where(filled, 1.0, -1.0)[..., None]
        strips = jnp.concatenate([seen.reshape(*filled.shape, height * strip), mark], axis=-1)
        x = constrain(self.stem(with_neighbours(strips)), "BTD")

        def step(layer: StripBlock, x: Array, _: None) -> tuple[Array, Array]:
            x = layer(x)
            return x, x

        x, layers = self.blocks.scan(step, x)
        logits = self.head(self.norm(x))
        return Seen(
            layers.reshape(len(layers), B, count, *x.shape[1:]),
            logits.reshape(B, count, *logits.shape[1:]),
            filled.reshape(B, count, -1),
        )


def best_path(logits: Float[Array, "*B T V"]) -> Int[Array, "*B T"]:
    """Greedy CTC (Graves et al. 2006, section 3.2): the likeliest symbol of each step, with 0 for
    blanks and repeats. What is left, less 1, are the bytes."""
    best = logits.argmax(axis=-1)
    before = jnp.roll(best, 1, axis=-1).at[..., 0].set(BLANK)
    return jnp.where(best == before, BLANK, best)


@dataclasses.dataclass(frozen=True)
class RecogniserTask:
    """Read the lines of pages. A batch holds `pixels` uint8 [B Y X C], `line_boxes` [B lines 4] and
    `line_bytes` [B lines T], see `example`."""

    model: RecogniserConfig = dataclasses.field(default_factory=RecogniserConfig)

    def init(self, rngs: nnx.Rngs) -> Recogniser:
        """A fresh recogniser."""
        return Recogniser(self.model, rngs=rngs)

    def loss(
        self, model: Recogniser, batch: Mapping[str, Array], key: Array
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """CTC's negative log-likelihood in nats a byte, over the lines there are, jittered by
        `key`."""
        boxes, targets = batch["line_boxes"], batch["line_bytes"]
        logits = model(as_float(batch["pixels"]), boxes, key=key).logits
        logits = logits.reshape(-1, *logits.shape[2:]).astype(jnp.float32)
        targets = targets.reshape(-1, targets.shape[-1])
        bare = (targets == BLANK).astype(jnp.float32)
        nll = optax.ctc_loss(logits, jnp.zeros(logits.shape[:2]), targets, bare, blank_id=BLANK)
        there = (boxes[..., 2] > 0).reshape(-1).astype(jnp.float32)
        total, num_bytes = (nll * there).sum(), (1.0 - bare).sum()
        scalars = {"nats_a_line": total / jnp.maximum(there.sum(), 1.0), "weight": num_bytes}
        return total / jnp.maximum(num_bytes, 1.0), scalars

    def group(self, path: tuple[str, ...]) -> str:
        """Matrices of the stem and the blocks are `hidden`; the head and the scales `rest`."""
        return "hidden" if path[-1] == "kernel" and path[0] != "head" else "rest"

    def probes(self) -> Mapping[str, Callable[..., Any]]:
        """Of (uint8 pages, boxes): `features` [L B lines T D], `logits` [B lines T V], `read`
        [B lines T] (see `best_path`)."""
        see = lambda model, pixels, boxes: model(as_float(pixels), boxes)  # noqa: E731
        return {
            "features": lambda *given: see(*given).layers,
            "logits": lambda *given: see(*given).logits,
            "read": lambda *given: best_path(see(*given).logits),
        }


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A trained recogniser as an instrument of a loss: its sizes and the hash of its weights are
    its identity.

    The arrays (of numpy) are no field and become constants of the program that uses them: no state,
    optimizer, average or checkpoint holds them, and a checkpoint trained with them is read without
    them.
    """

    model: RecogniserConfig
    weights: str
    arrays: dataclasses.InitVar[Any]

    def __post_init__(self, arrays: Any) -> None:
        object.__setattr__(self, "_arrays", arrays)

    def build(self) -> Recogniser:
        """The recogniser itself, that no gradient moves."""
        graphdef, _ = nnx.split(nnx.eval_shape(lambda: Recogniser(self.model, rngs=nnx.Rngs(0))))
        arrays = jax.tree.map(jnp.asarray, self._arrays)  # type: ignore[attr-defined]  # set above
        return nnx.merge(graphdef, jax.lax.stop_gradient(arrays))
