"""The processes that save together, as far as a checkpoint needs them."""

from __future__ import annotations

from typing import Any, Protocol


class Cluster(Protocol):
    """The processes that save together (`train/distributed/cluster.py` has real ones)."""

    @property
    def process_index(self) -> int: ...
    @property
    def num_processes(self) -> int: ...
    @property
    def is_first(self) -> bool: ...

    def barrier(self, name: str, *, timeout_s: float) -> None:
        """Wait for all processes; raises an error that names those that have not come."""
        ...

    def gather(self, name: str, value: Any, *, timeout_s: float) -> list[Any]:
        """The plain JSON that each process gave, in their order, to all of them."""
        ...


class Alone:
    """One process by itself."""

    process_index, num_processes, is_first = 0, 1, True

    def barrier(self, name: str, *, timeout_s: float) -> None:
        """Nobody to wait for."""

    def gather(self, name: str, value: Any, *, timeout_s: float) -> list[Any]:
        """Its own value."""
        return [value]
