"""What all processes must hear at the same step: whether one was asked to stop, and one clock."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from jax.sharding import Mesh

from train.distributed.protocol import Cluster
from train.supervision.stopping import Stop


class Pace:
    """Alone, a process looks at its own flag and clock. Among several, a tiny collective goes with
    every step and is read a step later, as scalars are; the clock is the first process's, in whole
    seconds since this was made."""

    def __init__(self, stop: Stop, mesh: Mesh, cluster: Cluster) -> None:
        self._stop, self._mesh, self._cluster = stop, mesh, cluster
        self._began = time.monotonic()
        self._late: Any = np.zeros(2, np.int32)

    def next(self) -> tuple[bool, float]:
        """Whether to stop and the seconds, as of the step before; every process calls it once a
        step."""
        if self._cluster.num_processes == 1:
            return self._stop.asked is not None, time.monotonic() - self._began
        asked, clock_s = (int(x) for x in np.asarray(self._late))
        own_s = int(time.monotonic() - self._began) if self._cluster.is_first else 0
        self._late = self._stop.ask(self._mesh, own_s)
        return bool(asked), float(clock_s)

    def is_asked(self) -> bool:
        """Whether any process was asked, now; every process calls it at the same place."""
        if self._cluster.num_processes == 1:
            return self._stop.asked is not None
        return self._stop.agreed(self._mesh)
