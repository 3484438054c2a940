"""Lines of text out of pages: their exact boxes as arrays, and a crop that gradients pass.

It lies beside the tokenizer because its reconstruction is cropped inside its loss. A box is (left,
top, width, height) in pixels of the page; a width of 0 means that there is no line.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from blueprint.schema import Blueprint
from blueprint.typeset import bands

BLANK = 0  # where a byte b is b + 1


def line_boxes(blueprint: Blueprint, max_lines: int) -> Float[np.ndarray, "lines 4"]:
    """The band of every line in reading order, padded with zeros to `max_lines`.

    Raises `ValueError` when the page has more.
    """
    size = blueprint.width_px, blueprint.height_px
    found = [band for text in blueprint.texts for band in bands(text, size)]
    if len(found) > max_lines:
        raise ValueError(
            f"a page has {len(found)} lines, more than max_lines {max_lines}: raise "
            "config.model.max_lines of a recogniser or config.text.max_lines of a tokenizer"
        )
    boxes = np.zeros((max_lines, 4), np.float32)
    boxes[: len(found)] = np.reshape(found, (-1, 4))
    return boxes


def line_bytes(blueprint: Blueprint, max_lines: int, max_bytes: int) -> Int[np.ndarray, "lines T"]:
    """The UTF-8 bytes of every line plus 1, in the order of `line_boxes`, padded with zeros.

    Raises `ValueError` naming the line that is longer than `max_bytes`.
    """
    targets = np.zeros((max_lines, max_bytes), np.int32)
    strings = [string for text in blueprint.texts for string in text.lines]
    for row, string in zip(targets, strings, strict=False):
        data = string.encode()
        if len(data) > max_bytes:
            raise ValueError(
                f"the line {string!r} has {len(data)} bytes, more than max_bytes {max_bytes}: "
                "raise config.model.max_bytes"
            )
        row[: len(data)] = np.frombuffer(data, np.uint8).astype(np.int32) + 1
    return targets


def steps_needed(string: str) -> int:
    """The fewest steps in which CTC can write a string: one a byte, and a blank between equal
    ones."""
    data = string.encode()
    return len(data) + sum(a == b for a, b in itertools.pairwise(data))


def boxed_example(record: Mapping[str, Any], max_lines: int) -> dict[str, np.ndarray]:
    """What a tokenizer with a text loss trains on: `pixels` and `line_boxes`."""
    return {
        "pixels": record["pixels"],
        "line_boxes": line_boxes(record["blueprint"], max_lines),
    }


def inside(boxes: Float[Array, "B lines 4"], size: tuple[int, int]) -> Bool[Array, "B Y X"]:
    """The pixels whose middle lies in a box, of pages of `size` = (rows, columns)."""
    left, top, width, height = (boxes[..., i, None] for i in range(4))
    y, x = jnp.arange(size[0]) + 0.5, jnp.arange(size[1]) + 0.5
    rows, columns = (y > top) & (y < top + height), (x > left) & (x < left + width)
    return (rows[..., :, None] & columns[..., None, :]).any(axis=1)


def filled_px(
    boxes: Float[Array, "B lines 4"],
    height_px: int,
    width_px: int,
    *,
    stretch: Float[Array, "B lines"] | float = 1.0,
) -> Float[Array, "B lines"]:
    """How many columns a line fills once it is `height_px` high and its width `stretch`ed, at most
    `width_px`."""
    zoomed = boxes[..., 2] * height_px / jnp.maximum(boxes[..., 3], 1e-3)
    return jnp.minimum(zoomed * stretch, width_px)


def jittered(
    key: Array, boxes: Float[Array, "B lines 4"], rate: float
) -> tuple[Float[Array, "B lines 4"], Float[Array, "B lines"]]:
    """Boxes as if they had been measured less well, and how far to stretch each line.

    Top and height move by up to `rate` / 4 of the height, the left edge by as much; the stretch is
    1 / (1 + rate) to 1 + rate, uniform in its logarithm.
    """
    by = jax.random.uniform(key, (4, *boxes.shape[:2]), minval=-1.0, maxval=1.0)
    left, top, width, height = (boxes[..., i] for i in range(4))
    step = height * rate / 4
    moved = (left + by[0] * step, top + by[1] * step, width, height + by[2] * step)
    there = (width > 0)[..., None]
    return jnp.where(there, jnp.stack(moved, axis=-1), boxes), (1.0 + rate) ** by[3]


def taps(
    start: Float[Array, "B lines"], pace: Float[Array, "B lines"], num_out: int, num_in: int
) -> Float[Array, "B lines O I"]:
    """What each of `num_in` pixels gives to each of `num_out` samples, `pace` pixels apart from
    `start` on.

    A triangle around the sample, normalised: bilinear where it enlarges, and as wide as the pace
    where it shrinks, so that nothing is skipped (the `linear` of `jax.image.scale_and_translate`).
    """
    middles = start[..., None] + (jnp.arange(num_out) + 0.5) * pace[..., None] - 0.5
    distance = jnp.abs(jnp.arange(num_in) - middles[..., None])
    weights = jax.nn.relu(1.0 - distance / jnp.maximum(pace, 1.0)[..., None, None])
    return weights / jnp.maximum(weights.sum(axis=-1, keepdims=True), 1e-6)


def crop(
    pixels: Float[Array, "B Y X C"],
    boxes: Float[Array, "B lines 4"],
    *,
    height_px: int,
    width_px: int,
    stretch: Float[Array, "B lines"] | float = 1.0,
) -> Float[Array, "B lines y x C"]:
    """Every line at `height_px` rows, its shape kept but for the `stretch` of its width, with zeros
    past its end.

    A line that would be wider than `width_px` is squeezed to it. Two products with matrices that
    are nearly all zeros: a gather of four taps a pixel would be slower on every device.
    """
    left, top, width, height = (boxes[..., i] for i in range(4))
    columns = filled_px(boxes, height_px, width_px, stretch=stretch)
    down = taps(top, height / height_px, height_px, pixels.shape[1])
    across = taps(left, width / jnp.maximum(columns, 1.0), width_px, pixels.shape[2])
    across = across * (jnp.arange(width_px) < columns[..., None])[..., None]
    rows = jnp.einsum("BlyY,BYXC->BlyXC", down, pixels)
    return jnp.einsum("BlxX,BlyXC->BlyxC", across, rows)
