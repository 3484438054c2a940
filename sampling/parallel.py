"""Parallel decoding of masked codes: a few passes, the surest positions first (Chang et al.
2022)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sampling.policy import Policy, choose

LogitsFn = Callable[[Int[Array, "B y x Q"], Bool[Array, "B y x"]], Float[Array, "B y x Q V"]]


def decode_masked(
    logits_of: LogitsFn,
    codes: Int[Array, "B y x Q"],
    masked: Bool[Array, "B y x"],
    keys: Array,
    *,
    num_passes: int = 1,
    policy: Policy = Policy(),  # noqa: B008  # a frozen value
) -> Int[Array, "B y x Q"]:
    """Fill the masked positions; the others never change. `keys` has one key a row.

    After pass i of n, a share cos(pi i / 2n) of the masked positions is masked again: those whose Q
    chosen codes have the least log-probability together. One greedy pass is the argmax.

    Raises `ValueError` for no passes.
    """
    if num_passes < 1:
        raise ValueError(f"num_passes {num_passes} is not at least 1")
    B = codes.shape[0]
    hidden = masked.reshape(B, -1)
    total = hidden.sum(axis=-1)

    def one_pass(
        i: Int[Array, ""] | int, carry: tuple[Array, Array]
    ) -> tuple[Int[Array, "B y x Q"], Bool[Array, "B y x"]]:
        codes, masked = carry
        logits = logits_of(codes, masked).astype(jnp.float32)
        here = jax.vmap(lambda key: jax.random.fold_in(key, i))(keys)
        chosen = jax.vmap(lambda key, row: choose(key, row, policy))(here, logits)
        chosen = jnp.where(masked[..., None], chosen, codes).astype(codes.dtype)
        picked = jnp.take_along_axis(
            jax.nn.log_softmax(logits), chosen[..., None].astype(jnp.int32), axis=-1
        )
        sureness = jnp.where(masked, picked.sum(axis=(-2, -1)), jnp.inf).reshape(B, -1)
        left = jnp.floor(total * jnp.cos(0.5 * jnp.pi * (i + 1) / num_passes) + 1e-6)
        left = jnp.where(i + 1 == num_passes, 0, left).astype(jnp.int32)
        rank = jnp.argsort(jnp.argsort(sureness, axis=-1), axis=-1)
        return chosen, (rank < left[:, None]).reshape(masked.shape)

    if num_passes == 1:  # outside jit a loop would be compiled anew at every call
        return one_pass(0, (codes, masked))[0]
    codes, _ = jax.lax.fori_loop(0, num_passes, one_pass, (codes, masked))
    return codes
