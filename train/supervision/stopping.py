"""Being asked to stop: all processes leave at the same step, saved, with `STOPPED`.

SIGTERM and SIGUSR1 ask. Schedulers send them before they take a machine away: SLURM by
`--signal=USR1@120` and at preemption, Kubernetes at eviction; a cloud's own notice (maintenance
event, spot reclaim) reaches the process as the SIGTERM of the agent that runs it. No metadata
server is polled. Ctrl-C asks the same way, so that work is saved; a second one interrupts as ever.

No process may act on its own signal, for the others would wait for it in a collective. So with
every step goes a tiny one of its own, the maximum of each process's flag, and as it is read one
step late everywhere, all processes learn of it at the same step, whoever was asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import threading
import time
from types import FrameType
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from train.exits import STOPPED
from train.supervision.watchdog import Cluster, flush, say, within

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_LISTEN_S, _ASK_S = 0.1, 0.5
_ASKED, _LEFT = "stop/asked", "stop/left"
_ANOTHER = "another process's signal"
_LIBC = ctypes.CDLL(None)


class Stopped(SystemExit):
    """Every process has saved at `step` and leaves; uncaught, it ends this one with `STOPPED`."""

    def __init__(self, step: int) -> None:
        super().__init__(STOPPED)
        self.step = step

    def __str__(self) -> str:
        return f"stopped and saved at step {self.step}; start again to go on"


def agreed(flags: Int[Array, "P 2"]) -> Int[Array, " 2"]:
    """The maximum of all processes' flags on every device: whether one was asked, and the clock."""
    return jnp.max(flags, axis=0)


_agreed = jax.jit(agreed)


class Stop:
    """While entered (in the main thread), signals that ask to stop set a flag and end nothing.

    Python handlers that were there before are called too, and are put back at the end; any number
    of signals changes no more than the first, but for a second Ctrl-C. Where SIGINT is ignored, as
    in a shell's background job, it stays so.

    C++ libraries take SIGTERM without Python's knowing, and the last to install wins. The
    preemption service of `jax.distributed.initialize` would, so it is switched off: a signal that
    came before ours was put back would be lost (Orbax does without the service). For others, as TPU
    runtimes, what `starting` runs puts ours back every 0.1 s, and once more at its end.
    """

    def __init__(self) -> None:
        self.asked: str | None = None  # the name of the first signal
        self._old: dict[signal.Signals, Any] = {}
        self._actions: dict[signal.Signals, Any] = {}
        self._interrupts = 0
        self._flags: dict[tuple[Mesh, int, int], jax.Array] = {}

    def __enter__(self) -> Stop:
        jax.config.update("jax_enable_preemption_service", False)
        for signum in _SIGNALS:
            if signum == signal.SIGINT and signal.getsignal(signum) is signal.SIG_IGN:
                continue
            self._old[signum] = signal.signal(signum, self._handle)
            self._actions[signum] = ctypes.create_string_buffer(512)  # a struct sigaction, unread
            _LIBC.sigaction(int(signum), None, self._actions[signum])
        return self

    def __exit__(self, *_: object) -> None:
        for signum, old in self._old.items():
            if signal.getsignal(signum) == self._handle:  # else someone else's, put there since
                signal.signal(signum, signal.SIG_DFL if old is None else old)
        self._actions.clear()

    def reinstall(self) -> None:
        """Take the signals back from whatever C++ library took them; any thread may."""
        for signum, action in self._actions.items():
            _LIBC.sigaction(int(signum), action, None)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        first = self.asked is None
        self.hear(signum)
        old = self._old[signal.Signals(signum)]
        self._interrupts += signum == signal.SIGINT
        if callable(old) and (signum != signal.SIGINT or self._interrupts > 1):
            old(signum, frame)
        elif first:
            say(f"{self.asked} came: all processes of this run will stop together")

    def hear(self, signum: int) -> None:
        """Note that a signal asked to stop."""
        self.asked = self.asked or signal.Signals(signum).name

    def flags(self, mesh: Mesh, clock_s: int = 0) -> Int[Array, "P 2"]:
        """A row per device of the mesh: 1 on this process's if it was asked, and `clock_s`, which
        one process gives so that all have the same. Arrays are made again only when they change."""
        key = mesh, int(self.asked is not None), clock_s
        if key not in self._flags:
            self._flags = {k: v for k, v in self._flags.items() if k[2] == clock_s}
            self._flags[key] = _constant(mesh, key[1:])
        return self._flags[key]

    def ask(self, mesh: Mesh, clock_s: int = 0) -> Int[Array, " 2"]:
        """`agreed` of all processes' flags, not waited for: to be read a step later. Every process
        must call it at the same place."""
        return _agreed(self.flags(mesh, clock_s))

    def agreed(self, mesh: Mesh) -> bool:
        """Whether any process was asked; waits for the devices, and every process must call it at
        the same place (between the probes of an evaluation)."""
        return bool(self.ask(mesh)[0])

    def starting(self, cluster: Cluster | None) -> Starting:
        """A context in which being asked ends this process at once; see `Starting`."""
        return Starting(self, cluster)


def _constant(mesh: Mesh, row: tuple[int, int]) -> jax.Array:
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    rows = np.array([row], np.int32)
    return jax.make_array_from_callback((mesh.size, 2), sharding, lambda _: rows)


class Starting:
    """From here until `end` nothing is worth saving: when any process is asked, all exit at once.

    Enter it before whatever can take long (finding the other processes, restoring, compiling), set
    `cluster` once there is one, and call `end` when the first step's scalars were read; leaving the
    context calls it too. Its threads hear signals while the main thread is in a C call without the
    GIL. `end` is a barrier: no process goes on while another may still leave by itself.
    """

    def __init__(self, stop: Stop, cluster: Cluster | None) -> None:
        self.cluster = cluster
        self._stop = stop
        self._lock = threading.Lock()  # held: this process goes, or it no longer may
        self._staying = False
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Starting:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._old_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for work in (self._listen, self._ask):
            thread = threading.Thread(target=work, name="stopping", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.end()
        elif not self._over.is_set():
            with self._lock:  # which is not given back where another thread is leaving
                self._staying = True
            # What failed may have failed because another process left, or was sent the signal too.
            if self._stop.asked or self._peer_left():
                self._leave(f"{self._stop.asked or _ANOTHER} came")
            self._close()

    def end(self, *, timeout_s: float = 300.0) -> None:
        """Signals only set the flag from now on. Calling it again does nothing."""
        if self._over.is_set():
            return
        with self._lock:
            self._staying = True
        if self.cluster and self.cluster.num_processes > 1:
            try:
                self.cluster.barrier("started", timeout_s)
            except Exception:
                if self._peer_left():
                    self._leave(f"{_ANOTHER} came")
                raise
        self._close()

    def _close(self) -> None:
        self._over.set()
        listening, asking = self._threads
        listening.join()  # it reads what is closed below
        asking.join(2 * _ASK_S)  # unless the service keeps it
        signal.set_wakeup_fd(self._old_fd)
        os.close(self._write)
        os.close(self._read)
        self._stop.reinstall()

    def _listen(self) -> None:
        while not self._over.is_set():
            self._stop.reinstall()
            if select.select([self._read], [], [], _LISTEN_S)[0]:
                heard = os.read(self._read, 64)
                if self._old_fd >= 0:
                    with contextlib.suppress(OSError):
                        os.write(self._old_fd, heard)
                for signum in set(heard) & set(_SIGNALS):
                    self._stop.hear(signum)
            if self._stop.asked:
                with self._lock:
                    if not self._staying:
                        self._leave(f"{self._stop.asked} came")

    def _ask(self) -> None:
        while not self._over.wait(_ASK_S):
            # Who wrote the key is gone or going, and the barrier of `end` waits for it in vain.
            if self._peer_left():
                with self._lock:
                    self._leave(f"{_ANOTHER} came")

    def _peer_left(self) -> bool:
        cluster = self.cluster
        if cluster is None or cluster.num_processes == 1:
            return False
        return within(5.0, lambda: cluster.get(_ASKED)) is not None

    def _leave(self, why: str) -> NoReturn:
        cluster = self.cluster
        name = cluster.name if cluster else f"process {os.getpid()} of this machine"
        say(f"{name}: {why} before the first step: nothing to save, exit code {STOPPED}")
        if cluster and cluster.num_processes > 1:
            within(2.0, lambda: cluster.put(_ASKED, why))
            within(2.0, lambda: cluster.put(f"{_LEFT}/{cluster.process_index}", why))
            if cluster.process_index == 0:  # it serves the key: let the others read it
                within(10.0, lambda: _wait_for(cluster))
        flush()
        os._exit(STOPPED)


def _wait_for(cluster: Cluster) -> None:
    for index in range(cluster.num_processes):
        while cluster.get(f"{_LEFT}/{index}") is None:
            time.sleep(0.05)


def _forget_in_child() -> None:
    """A forked child (not one that was spawned) is no part of the run: its signals are its own."""
    for signum in _SIGNALS:
        if isinstance(getattr(signal.getsignal(signum), "__self__", None), Stop):
            signal.signal(signum, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_in_child)
