"""Printing as a loop over passes that can be stopped between any two of them, to look at what there
is so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

Index = Int[Array, ""] | int
Shown = tuple[Int[Array, "B y x Q"], Bool[Array, "B y x"]]


@dataclasses.dataclass(frozen=True)
class Loop:
    """`start()` makes what the pass `first` is handed, those before it done, `one(i, carry)` is
    pass i, `shown(i, carry)` has the codes after i passes and which of them stay as they are,
    `passes()` after how many each page is done.

    It holds functions of arrays that are being traced. A program that goes on with a loop makes it
    anew from the same arrays, and its `start`, which reads a page's letters, is never called.
    """

    num_passes: Index
    start: Callable[[], Any]
    one: Callable[[Any, Any], Any]
    shown: Callable[[Any, Any], Shown]
    passes: Callable[[], Int[Array, " B"]]
    first: int = 0

    def run(self) -> Int[Array, "B y x Q"]:
        """The codes after the last pass."""
        carry = self.start()
        left = self.num_passes - self.first if isinstance(self.num_passes, int) else None
        if left == 1:
            carry = self.one(self.first, carry)  # outside jit a loop is compiled at every call
        elif left != 0:
            carry = jax.lax.fori_loop(self.first, self.num_passes, self.one, carry)
        return self.shown(self.num_passes, carry)[0]

    def go_on(self, first: Index, carry: Any, *, every: int) -> Any:
        """Passes `first` to `first + every`, or as many as there are left."""
        last = jnp.minimum(first + every, self.num_passes)
        return jax.lax.fori_loop(first, last, self.one, carry)
