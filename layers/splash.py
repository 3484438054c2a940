"""Splash attention: JAX's Pallas kernel for TPUs, which never holds the scores and skips blocks
that a causal mask rules out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Array, Float

from layers.masks import Mask

LANES = 128  # what a block's sides are multiples of
LARGEST = 512
SAVED = "attention"  # the name under which a remat policy keeps what the backward pass reads


def block(num_tokens: int) -> int:
    """The side of a block for so many tokens (a multiple of `LANES`): the largest that divides
    them."""
    sides = range(LANES, min(LARGEST, num_tokens) + 1, LANES)
    return max(side for side in sides if num_tokens % side == 0)


def table(mask: Mask, num_queries: int, num_keys: int) -> splash.Mask:
    """What of a mask is the same in every row, and so decided when the program is built."""
    shape = (num_queries, num_keys)
    if not mask.causal:
        return splash.FullMask(shape)
    if not mask.prefix:
        return splash.CausalMask(shape)
    queries, keys = np.arange(num_queries)[:, None], np.arange(num_keys)
    return splash.NumpyMask((keys <= queries) | (keys < mask.prefix))


def segments(
    mask: Mask, num_rows: int, tokens: tuple[int, int], padded: tuple[int, int]
) -> splash.SegmentIds | None:
    """Queries are in segment 0, keys that are there too, those that are not in segment 1; None if
    none needs hiding (a causal query looks at no padding, which comes last)."""
    there = jnp.ones((num_rows, tokens[1]), bool)
    if mask.num_present is not None:
        there = mask.present(tokens[1])
    elif mask.causal or tokens[1] == padded[1]:
        return None
    there = jnp.pad(there, ((0, 0), (0, padded[1] - tokens[1])))
    return splash.SegmentIds(jnp.zeros((num_rows, padded[0]), jnp.int32), (~there).astype("int32"))


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Mask,
    *,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """The kernel over the rows and heads of one device. `interpret` runs it, slowly, anywhere."""
    (B, T, N, H), S = query.shape, key.shape[1]
    padded = (T + -T % LANES, S + -S % LANES)

    def ready(x: Array, length: int) -> Array:  # the kernel has heads first
        return jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0), (0, 0))).swapaxes(1, 2)

    side_q, side_kv = block(padded[0]), block(padded[1])
    sizes = splash.BlockSizes(
        block_q=side_q, block_kv=side_kv, block_kv_compute=side_kv,
        block_q_dkv=side_q, block_kv_dkv=side_kv, block_kv_dkv_compute=side_kv,
        block_q_dq=side_q, block_kv_dq=side_kv,
    )  # fmt: skip
    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([table(mask, *padded)] * N),
        block_sizes=sizes, residual_checkpoint_name=SAVED, interpret=interpret,
    )  # fmt: skip
    # the kernel does not divide by sqrt(H)
    scaled = (query.astype(jnp.float32) * H**-0.5).astype(query.dtype)
    rows = (ready(scaled, padded[0]), ready(key, padded[1]), ready(value, padded[1]))
    out: Any = jax.vmap(kernel)(*rows, segments(mask, B, (T, S), padded))
    return out.swapaxes(1, 2)[:, :T]
