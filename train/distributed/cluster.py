"""Several processes as one run: find each other, wait for each other by name, and agree.

What the processes say to each other goes through JAX's coordination service (gRPC to process 0,
no device), so it works while a device is busy or stuck, has timeouts, and knows who is missing.
One process has the same interface and no service.
"""

from __future__ import annotations

import collections
import concurrent.futures
import hashlib
import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

import jax
from jax._src import distributed  # the client has no public name; Orbax reaches for it here too
from jax._src.xla_bridge import backends_are_initialized

from train.distributed.agreement import disagreements
from train.distributed.collectives import use_gloo
from train.distributed.environment import ClusterConfig, ClusterError, resolved
from train.distributed.rollcall import Hello, meet

__all__ = ["Client", "Cluster", "ClusterConfig", "ClusterError", "process_name", "start"]
_ROOT = "letterpress"
_NUM_SHOWN = 20


class Client(Protocol):
    """What we use of `jaxlib`'s DistributedRuntimeClient."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None: ...
    def key_value_dir_get(self, key: str) -> Sequence[tuple[str, str]]: ...
    def key_value_delete(self, key: str) -> None: ...
    def wait_at_barrier(self, barrier_id: str, timeout_in_ms: int) -> None: ...


def process_name(process: int) -> str:
    """How errors call this process: `process 1 (host, pid 123)`."""
    return f"process {process} ({socket.gethostname()}, pid {os.getpid()})"


def start(config: ClusterConfig | None = None) -> Cluster:
    """Join the other processes; call it once, before anything asks JAX for devices.

    Raises `ClusterError` naming address, process and remedy when the coordinator cannot be
    reached, somebody does not come in `start_timeout_s`, or a backend was there already.
    Alone, it only sees to it that several CPU devices compute what several processes would.
    """
    config = resolved(config or ClusterConfig())
    own = process_name(config.process_id)
    if config.num_processes == 1:
        if config.collectives == "gloo":
            use_gloo()
        return Cluster(config, [own])
    if jax.distributed.is_initialized():
        raise ClusterError(f"{own} was started already: call start() once, and initialize() never")
    problem = ""
    if backends_are_initialized():
        problem = "JAX was asked for devices before start(): call start() first"
    hello = Hello(config.process_id, config.num_processes, own, problem)
    names = meet(config.coordinator, hello, config.start_timeout_s)
    try:
        jax.distributed.initialize(
            config.coordinator,
            config.num_processes,
            config.process_id,
            local_device_ids=list(config.device_ids) or None,
            cluster_detection_method="deactivate",
            initialization_timeout=math.ceil(config.start_timeout_s),
            heartbeat_timeout_seconds=config.heartbeat_timeout_s,
            shutdown_timeout_seconds=config.shutdown_timeout_s,
        )
    except (RuntimeError, ValueError) as problem:
        raise ClusterError(f"{own} could not join {config.coordinator}: {problem}") from problem
    return Cluster(config, names, distributed.global_state.client)


class Cluster:
    """The processes of one run, seen from this one.

    Every process makes the same calls of `barrier`, `gather` and `agree` in the same order; `put`
    and `get` are free.
    """

    def __init__(
        self, config: ClusterConfig, names: Sequence[str], client: Client | None = None
    ) -> None:
        self.config = config
        self.names = list(names)
        self.process_index = max(config.process_id, 0)
        self._client = client
        self._kept: dict[str, str] = {}
        self._calls: collections.Counter[str] = collections.Counter()
        self._failures: collections.Counter[str] = collections.Counter()

    @property
    def num_processes(self) -> int:
        """How many there are, this one included."""
        return len(self.names)

    @property
    def name(self) -> str:
        """This process, as errors call it: "process 1 (host, pid 123)"."""
        return self.names[self.process_index]

    @property
    def is_first(self) -> bool:
        """Whether this process does what is done once (process 0 hosts the service too)."""
        return self.process_index == 0

    def barrier(self, name: str, timeout_s: float) -> None:
        """Wait for all; signal handlers run meanwhile. The service looks about once a second.

        Raises `ClusterError` naming who has not come after `timeout_s`.
        """
        if self._client is None:
            return
        client, call = self._client, self._calls[name]
        self._calls[name] += 1
        here = f"{_ROOT}/barrier/{name}"
        client.key_value_set(f"{here}/{call}/{self.process_index}", "")
        # One id serves all calls, else the service would keep a record of each for days; after a
        # failure it is a new one, so that those who come late hear of the failure, each by itself.
        identifier = f"{here}/{self._failures[name]}"
        started = time.monotonic()
        try:
            _interruptible(lambda: client.wait_at_barrier(identifier, round(timeout_s * 1000)))
        except jax.errors.JaxRuntimeError as problem:
            self._failures[name] += 1
            waited_s = time.monotonic() - started
            missing = self._not_arrived(f"{here}/{call}")
            raise ClusterError(self._why(name, waited_s, missing, problem)) from problem
        if self.is_first and call:  # all are past it, so nobody will ask who came
            client.key_value_delete(f"{here}/{call - 1}")

    def _not_arrived(self, here: str) -> list[int]:
        client = self._client
        assert client is not None
        came = {int(key.rpartition("/")[2]) for key, _ in client.key_value_dir_get(here)}
        return sorted(set(range(self.num_processes)) - came)

    def _why(self, name: str, waited_s: float, missing: list[int], problem: Exception) -> str:
        first_line = str(problem).partition("\n")[0]
        ended = "" if "DEADLINE_EXCEEDED" in first_line else f" ({first_line})"
        if not missing:
            return (
                f"{self.name} came too late to {name!r}{ended}: the others had given up waiting; "
                "see its log for what kept it, or give it longer"
            )
        who = ", ".join(self.names[i] for i in missing[:_NUM_SHOWN])
        more = f" and {len(missing) - _NUM_SHOWN} more" if len(missing) > _NUM_SHOWN else ""
        return (
            f"{self.name} waited {waited_s:.0f} s at {name!r}{ended}; not arrived: {who}{more}: "
            "see their logs and stacks, or give them longer"
        )

    def gather(self, name: str, value: Any, timeout_s: float) -> list[Any]:
        """Every process's plain-JSON value, in the order of the processes, to every process."""
        text = json.dumps(value, sort_keys=True)
        if self._client is None:
            return [json.loads(text)]
        self._calls[f"gather {name}"] += 1
        call = self._calls[f"gather {name}"]
        here = f"{_ROOT}/gather/{name}"
        self._client.key_value_set(f"{here}/{call}/{self.process_index}", text)
        self.barrier(f"{name} (gather)", timeout_s)
        said = dict(self._client.key_value_dir_get(f"{here}/{call}"))
        if self.is_first and call > 1:  # all came to this call, so all have read the one before
            self._client.key_value_delete(f"{here}/{call - 1}")
        return [json.loads(said[f"{here}/{call}/{i}"]) for i in range(self.num_processes)]

    def agree(self, name: str, value: Any, timeout_s: float) -> None:
        """Raise `ClusterError`, in every process, unless all have the same plain-JSON value; it
        lists each field that differs and who has which.

        Only hashes travel while all agree.
        """
        digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
        if len(set(self.gather(name, digest, timeout_s))) == 1:
            return
        lines = disagreements(self.gather(name, value, timeout_s), self.names)
        raise ClusterError(f"the processes do not agree on {name}: {'; '.join(lines)}")

    def put(self, key: str, value: Any) -> None:
        """Keep a small plain-JSON value where every process can `get` it; it may be put again."""
        if self._client is None:
            self._kept[key] = json.dumps(value)
        else:
            self._client.key_value_set(f"{_ROOT}/put/{key}/value", json.dumps(value), True)

    def get(self, key: str) -> Any:
        """What any process last put under the key; None if nothing was."""
        if self._client is None:
            text = self._kept.get(key)
        else:
            here = f"{_ROOT}/put/{key}"
            text = dict(self._client.key_value_dir_get(here)).get(f"{here}/value")
        return None if text is None else json.loads(text)

    def leave(self, code: int, *, patience_s: float = 5.0) -> NoReturn:
        """End this process with this exit code, now.

        An ordinary exit waits at JAX's shutdown for processes that may be stuck, then aborts with
        a code of its own. The service ends with process 0, so that stays up to `patience_s` for
        the others to leave by themselves.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        deadline = time.monotonic() + patience_s
        try:
            self.put(f"left/{self.process_index}", code)
            while self.is_first and time.monotonic() < deadline:
                if all(self.get(f"left/{i}") is not None for i in range(self.num_processes)):
                    break
                time.sleep(0.05)
        except jax.errors.JaxRuntimeError:
            pass  # the service is gone: nobody to wait for
        os._exit(code)


def _interruptible(wait: Callable[[], None]) -> None:
    """Wait in another thread: Python runs signal handlers in this one only between bytecodes, which
    a blocking call into C++ would put off to its end."""
    done: concurrent.futures.Future[None] = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(wait())
        except BaseException as problem:
            done.set_exception(problem)

    threading.Thread(target=run, daemon=True, name="barrier").start()
    done.result()
