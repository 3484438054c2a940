"""What watches over a run from the first moment of its process: signals, deadlines and the other
processes."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

from train.distributed.cluster import Cluster, ClusterConfig, start
from train.supervision.meter import Meter
from train.supervision.stopping import Starting, Stop
from train.supervision.watchdog import Deadlines, Watchdog


@dataclasses.dataclass(frozen=True)
class Supervision:
    """`starting` ends by itself at the first step that is done: until then a signal ends the
    process at once."""

    cluster: Cluster
    watchdog: Watchdog
    stop: Stop
    starting: Starting
    meter: Meter

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Hold what runs inside to its deadline, and book its time (a name of `PHASES`)."""
        with self.watchdog.phase(name), self.meter.span(name):
            yield


_CURRENT: contextvars.ContextVar[Supervision | None] = contextvars.ContextVar("supervision")


@contextlib.contextmanager
def supervised(
    cluster: ClusterConfig | None = None, deadlines: Deadlines | None = None
) -> Iterator[Supervision]:
    """Take the signals, arm the watchdog, and join the other processes, if there are any.

    Enter it in the main thread, before anything asks JAX for devices. Raises `ClusterError` when
    the processes do not find each other.
    """
    meter = Meter()
    with (
        Watchdog(None, deadlines or Deadlines()) as watchdog,
        Stop() as stop,
        stop.starting(None) as starting,
    ):
        with watchdog.phase("init"):
            found = start(cluster)
        watchdog.cluster = starting.cluster = found
        supervision = Supervision(found, watchdog, stop, starting, meter)
        token = _CURRENT.set(supervision)
        try:
            yield supervision
        finally:
            _CURRENT.reset(token)


@contextlib.contextmanager
def supervision() -> Iterator[Supervision]:
    """That of this process, or for a process that has none one of its own that knows no others."""
    found = _CURRENT.get(None)
    if found is not None:
        yield found
        return
    # what devices there are is this process's own business
    with supervised(ClusterConfig(kind="single", collectives="xla")) as own:
        yield own
