"""Prompts to proofread pages, any number of them: plans, prints and proofs each go on while the
others work, so that neither the device nor the reader waits."""

from __future__ import annotations

import dataclasses
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from blueprint.schema import Blueprint
from evals.proof import Proof
from evals.readers import ReadLine
from pipeline.bundle import Bundle

Pages = UInt8[np.ndarray, "B Y X 3"]
ReadPagesFn = Callable[[Pages], Sequence[Sequence[ReadLine]]]
PrintFn = Callable[[Sequence[int], Sequence[Blueprint]], np.ndarray]
T = TypeVar("T")
_END = object()


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One page of many: the number of its prompt, its plan, how it looks and how it reads."""

    number: int
    blueprint: Blueprint
    page: UInt8[np.ndarray, "Y X 3"]
    proof: Proof


def ahead(items: Iterable[T], depth: int = 1) -> Iterator[T]:
    """The same items, made in a thread of their own while the caller works, at most `depth` before
    they are asked for. What goes wrong there is raised here; a caller that stops, stops it."""
    made: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                made.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as problem:  # it belongs to the caller's thread
            put((_END, problem))

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            item, problem = made.get()
            if problem is not None:
                raise problem
            if item is _END:
                return
            yield item
    finally:
        stopped.set()


def draw_all(
    bundle: Bundle,
    plans: Iterable[tuple[int, Blueprint]],
    read: ReadPagesFn,
    *,
    print_pages: PrintFn,
    batch_size: int = 16,
    max_retries: int = 4,
) -> Iterator[Drawn]:
    """Pages of numbered plans as they are done: so many printed at once by `print_pages`, numbers
    and blueprints to codes, and read by `read`, pages uint8 [B Y X 3] to the lines of each."""
    rows = ahead(_batched(plans, batch_size))

    def prints() -> Iterator[tuple[Sequence[int], list[Blueprint], np.ndarray]]:
        for batch in rows:
            numbers, blueprints = [n for n, _ in batch], [plan for _, plan in batch]
            yield numbers, blueprints, print_pages(numbers, blueprints)

    for numbers, blueprints, codes in ahead(prints()):
        best, proofs = bundle.proofread(blueprints, codes, read, max_retries=max_retries)
        yield from map(Drawn, numbers, blueprints, bundle.pixels(best), proofs)


def _batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """`itertools.batched`, which Python 3.11 has not."""
    left = iter(items)
    while batch := tuple(itertools.islice(left, size)):
        yield batch
