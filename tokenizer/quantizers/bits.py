"""Sign bits as codes, what LFQ and BSQ share: their config, packing, and entropies in nats.

A bit is chosen softly with probability sigmoid(a), where the logit a is 4 z c / T: of the two
values -c and c, that is the softmax of -|z - value|^2 / T. All bits of a code together are chosen
with the product of their probabilities, which is the softmax over all 2^bits corners; so what
factorises is exact.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class BitsConfig:
    """`bits` of one code, whose alphabet is 2^bits; a position has `num_codes` times as many.

    `commitment` pulls inputs to their signs. `entropy` weighs (entropy of a position - `diversity`
    * entropy of the batch), in nats a code, at `temperature` T.
    """

    bits: int = 8
    commitment: float = 0.25
    entropy: float = 0.1
    diversity: float = 1.0
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 24:
            raise ValueError(
                f"quantizer.bits.bits {self.bits} is not from 1 to 24; "
                "more bits a position are more codes: raise quantizer.num_codes"
            )
        if self.temperature <= 0:
            raise ValueError(f"quantizer.bits.temperature {self.temperature} must be more than 0")


def pack(bits: Bool[Array, "B y x Z"], num_codes: int) -> Int[Array, "B y x Q"]:
    """Whole numbers of groups of bits, the first bit lowest."""
    groups = bits.reshape(*bits.shape[:3], num_codes, -1).astype(jnp.int32)
    return (groups << jnp.arange(groups.shape[-1], dtype=jnp.int32)).sum(axis=-1, dtype=jnp.int32)


def signs(codes: Int[Array, "B y x Q"], bits: int) -> Float[Array, "B y x Z"]:
    """-1 and 1 for the bits of each code: the inverse of `pack`."""
    found = (codes[..., None] >> jnp.arange(bits, dtype=jnp.int32)) & 1
    return (2.0 * found - 1.0).reshape(*codes.shape[:3], -1)


def bit_entropy(logits: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """-p log p - (1 - p) log(1 - p) for p = sigmoid(a), as softplus(a) - a p."""
    return jax.nn.softplus(logits) - logits * jax.nn.sigmoid(logits)


def position_entropy(logits: Float[Array, "B y x Z"], num_codes: int) -> Float[Array, ""]:
    """Mean entropy of a position's soft choice of one code: the sum of its bits' entropies."""
    return bit_entropy(logits).sum(axis=-1).mean() / num_codes


def marginal_entropy(logits: Float[Array, "B y x Z"], num_codes: int) -> Float[Array, ""]:
    """Entropy of each bit's mean choice, summed over a code's bits: the entropy of the batch's mean
    choice if bits were independent, and never less than it."""
    p = jax.nn.sigmoid(logits).mean(axis=(0, 1, 2))
    entropy = -(p * jnp.log(p + 1e-12) + (1 - p) * jnp.log(1 - p + 1e-12))
    return entropy.sum() / num_codes


def joint_entropy(logits: Float[Array, "B y x Z"], num_codes: int) -> Float[Array, ""]:
    """Entropy of the batch's mean choice among all 2^bits of a code, averaged over codes.

    Exact in the memory of its square root: a choice is an outer product of the choices of a low and
    a high half of the bits, so the mean over positions is one matrix product of the halves.
    """
    rows = logits.reshape(-1, num_codes, logits.shape[-1] // num_codes)
    half = rows.shape[-1] // 2
    low, high = _choices(rows[..., :half]), _choices(rows[..., half:])
    highest = jax.lax.Precision.HIGHEST
    mean = jnp.einsum("BQV,BQF->QVF", low, high, precision=highest) / rows.shape[0]
    return -(mean * jnp.log(mean + 1e-12)).sum() / num_codes


def _choices(logits: Float[Array, "B Q Z"]) -> Float[Array, "B Q V"]:
    """Probabilities of all 2^Z patterns of a few bits."""
    width = logits.shape[-1]
    patterns = (np.arange(2**width)[:, None] >> np.arange(width)) & 1
    chosen = jnp.einsum("BQZ,VZ->BQV", logits, jnp.array(patterns, logits.dtype))
    return jnp.exp(chosen - jax.nn.softplus(logits).sum(axis=-1, keepdims=True))


def weighed(
    config: BitsConfig,
    miss: Float[Array, "B y x Z"],
    position: Float[Array, ""],
    batch: Float[Array, ""],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss of commitment and entropies, and its parts for the log; `miss` is the input less
    its (stopped) values."""
    commitment = jnp.square(miss).mean()
    entropy = position - config.diversity * batch
    loss = config.commitment * commitment + config.entropy * entropy
    scalars = {"commitment": commitment, "position_entropy": position, "batch_entropy": batch}
    return loss, scalars
