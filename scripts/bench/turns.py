"""Several programs timed in turns, so that a neighbour on the machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Times = dict[str, list[float]]


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one run; of the first, compiling among them."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turns(runs: Mapping[str, Callable[[], Any]], turns: int) -> Times:
    """Seconds of each, one after another and over again; each has been run once."""
    took: Times = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            took[name].append(timed(run))
    return took


def median(times: list[float]) -> float:
    """The middle one."""
    return statistics.median(times)


def ratio(took: Times, theirs: str, own: str = "ours") -> float:
    """How many times as long as `own` another takes: the median over the turns, each by itself."""
    return median([a / b for a, b in zip(took[theirs], took[own], strict=True)])
