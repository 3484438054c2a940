"""Parallel decoding of masked codes: a few passes, the surest positions first (Chang et al.
2022)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sampling.loops import Loop
from sampling.picking import Pick

Written = tuple[Int[Array, "B y x Q"], Float[Array, "B y x Q V"]]
WriteFn = Callable[[Int[Array, "B y x Q"], Bool[Array, "B y x"], Pick], Written]
"""(codes, which are masked, pick) -> (codes of every position, the logits they were picked
from)."""


def at_once(
    logits_of: Callable[[Int[Array, "B y x Q"], Bool[Array, "B y x"]], Float[Array, "B y x Q V"]],
) -> WriteFn:
    """Writing by logits that do not depend on the codes picked beside them."""

    def write(codes: Array, masked: Array, pick: Pick) -> Written:
        logits = logits_of(codes, masked)
        B, y, x, Q, V = logits.shape
        return pick(logits.reshape(B, y * x, Q, V)).reshape(B, y, x, Q), logits

    return write


def require_passes(num_passes: int) -> None:
    """Raise `ValueError` for no passes."""
    if num_passes < 1:
        raise ValueError(f"num_passes {num_passes} is not at least 1")


def decode_masked(
    write: WriteFn,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    pick: Pick,
    *,
    num_passes: int = 1,
) -> Int[Array, "B y x Q"]:
    """Fill the masked positions; the others never change. `pick` has one key a row.

    After pass i of n, a share cos(pi i / 2n) of the masked positions is masked again: those whose Q
    chosen codes have the least log-probability together. One greedy pass is the argmax.

    Raises `ValueError` for no passes.
    """
    return masked_loop(write, codes, masked, pick, num_passes=num_passes).run()


def masked_loop(
    write: WriteFn,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    pick: Pick,
    *,
    num_passes: int = 1,
) -> Loop:
    """`decode_masked` as a loop: what is carried are the codes, and which will be printed anew."""
    require_passes(num_passes)
    B = codes.shape[0]
    hidden = masked.reshape(B, -1)
    total = hidden.sum(axis=-1)

    def one_pass(
        i: Int[Array, ""] | int, carry: tuple[Array, Array]
    ) -> tuple[Int[Array, "B y x Q"], Bool[Array, "B y x"]]:
        codes, masked = carry
        chosen, logits = write(codes, masked, pick.at(i))
        chosen = jnp.where(masked[..., None], chosen, codes).astype(codes.dtype)
        logs = jax.nn.log_softmax(logits.astype(jnp.float32))
        picked = jnp.take_along_axis(logs, chosen[..., None].astype(jnp.int32), axis=-1)
        sureness = jnp.where(masked, picked.sum(axis=(-2, -1)), jnp.inf).reshape(B, -1)
        left = jnp.floor(total * jnp.cos(0.5 * jnp.pi * (i + 1) / num_passes) + 1e-6)
        left = jnp.where(i + 1 == num_passes, 0, left).astype(jnp.int32)
        rank = jnp.argsort(jnp.argsort(sureness, axis=-1), axis=-1)
        return chosen, (rank < left[:, None]).reshape(masked.shape)

    shown = lambda _, carry: (carry[0], ~carry[1])  # noqa: E731
    passes = lambda: jnp.where(total > 0, num_passes, 0)  # noqa: E731
    return Loop(num_passes, lambda: (codes, masked), one_pass, shown, passes)
