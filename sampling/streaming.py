"""Codes while they are being printed: the loop of a press in short programs, each of which goes on
with what the one before left in its memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from sampling.printing import Press, Probes, printing

Request = tuple[Any, ...]
"""What `sampling.printing.print_codes` is given: codes, masked, conditions and keys."""


@dataclasses.dataclass(frozen=True)
class Partial:
    """Codes of pages that are being printed. Where `known` is False they are yet to come, and what
    `codes` has there says nothing."""

    codes: Int[np.ndarray, "B y x Q"]
    known: Bool[np.ndarray, "B y x"]
    num_passes: int


def begin(probes: Probes, *request: Any, press: Press) -> tuple[Any, Int[Array, " 2"]]:
    """What the first pass of the loop is handed, the letters read; which that is, and how many
    passes there are."""
    loop = printing(probes, *request, press=press)
    return loop.start(), jnp.stack([jnp.asarray(loop.first), jnp.asarray(loop.num_passes)])


def go_on(
    probes: Probes, carry: Any, first: Int[Array, ""], *request: Any, press: Press, every: int
) -> tuple[Any, tuple[Array, Array]]:
    """The next passes, and what there is after them."""
    loop = printing(probes, *request, press=press)
    carry = loop.go_on(first, carry, every=every)
    last = jnp.minimum(first + every, loop.num_passes)
    return carry, loop.shown(last, carry)


def stream_codes(
    begin: Callable[..., Any],
    go_on: Callable[..., Any],
    request: Request,
    *,
    press: Press,
    every: int,
) -> Iterator[Partial]:
    """The codes after each `every` passes and after the last, which are those that `print_codes`
    makes, by the two functions above compiled; `go_on` may take its carry's memory.

    Raises `ValueError` for no passes.
    """
    if every < 1:
        raise ValueError(f"every {every} passes is never; give at least 1")
    carry, passes = begin(*request, press=press)
    first, total = (int(n) for n in np.asarray(passes))
    steps = 0 if 0 < first < total else every  # what is certain is shown before more is printed
    while True:
        carry, shown = go_on(carry, first, *request, press=press, every=steps)
        first, steps = min(first + steps, total), every
        codes, known = (np.asarray(x) for x in shown)
        yield Partial(codes, known, first)
        if first == total:
            return
