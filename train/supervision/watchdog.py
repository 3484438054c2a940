"""A process that is stuck says where, and whom it waits for, and ends: the scheduler starts it
again."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from train.exits import STUCK
from train.supervision.deadman import DeadMan

_TICK_S = 0.2
_PUBLISH_S = 1.0
_SILENT_S = 15.0  # a process speaks every second, whatever its loop does


class Cluster(Protocol):
    """What the watchdog and `train/supervision/stopping.py` ask of the processes of a run."""

    @property
    def process_index(self) -> int: ...
    @property
    def num_processes(self) -> int: ...
    @property
    def name(self) -> str: ...
    def put(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> str | None: ...
    def barrier(self, name: str, timeout_s: float) -> None: ...


@dataclasses.dataclass(frozen=True)
class Deadlines:
    """Seconds that each phase may last, and one step of the loop; 0 is no deadline.

    They are meant to catch what never ends, not what is slow: a cold restore on 700 GPUs was seen
    to take 24 minutes, and a compile as long. `report` is how long telling may take.
    """

    init: float = 900.0
    restore: float = 5400.0
    compile: float = 5400.0
    step: float = 900.0
    evaluation: float = 5400.0
    save: float = 3600.0
    data: float = 900.0
    report: float = 20.0

    def __post_init__(self) -> None:
        for name, seconds in dataclasses.asdict(self).items():
            if seconds < 0 or (name == "report" and seconds < 0.5):
                raise ValueError(f"deadline {name} is {seconds} s; give seconds, or 0 for none")

    def of(self, phase: str) -> float:
        """The seconds of a phase; raises `ValueError` for one that there is not."""
        if phase not in PHASES:
            raise ValueError(f"no phase {phase!r} has a deadline; there are {', '.join(PHASES)}")
        return getattr(self, phase)


PHASES = tuple(f.name for f in dataclasses.fields(Deadlines) if f.name != "report")


@dataclasses.dataclass(frozen=True)
class _Now:
    """One look at where the loop is; `entered` counts the phases begun, as a program counter."""

    phase: str
    since: float  # time.monotonic()
    step: int | None
    entered: int


def say(text: str) -> None:
    """Write a line to standard error past every lock of Python's that a stuck thread may hold."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode(errors="replace"))


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` returns, or None where it has not in time: another thread waits for it."""
    found: list[Any] = []

    def run() -> None:
        with contextlib.suppress(Exception):  # a service that is gone answers by raising
            found.append(call())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def flush() -> None:
    """Flush what Python still holds of the two standard streams, if their locks are free."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            within(0.5, stream.flush)


class Watchdog:
    """Threads that end this process with `STUCK` once a phase, or one step, outlasts its deadline.

    Enter it first thing in the process: until the first `beat` the time outside of every phase
    counts as `init`, and from then on as `step`. Set `cluster` once there is one. Phases belong to
    the thread that entered the watchdog; every process should go through the same ones, so that it
    can be told who is behind.

    Before the end, standard error gets one sentence, the stacks of all threads, and what every
    other process last said. That works while the main thread is in a C call without the GIL (a
    collective, a compile). Where a call keeps the GIL no thread of Python's runs, and a `DeadMan`
    does it `report` seconds later: a sentence, the stacks, the same exit code, nothing about the
    others (which tell it themselves, for this process is silent).
    """

    def __init__(self, cluster: Cluster | None, deadlines: Deadlines) -> None:
        self.cluster = cluster
        self._deadlines = deadlines
        self._stack: list[tuple[str, float]] = []
        self._step: int | None = None
        self._entered = 0
        self._over = threading.Event()
        self._owner = 0

    def __enter__(self) -> Watchdog:
        self._owner = threading.get_ident()
        self._dead_man = DeadMan(STUCK)
        self._stack = [("init", time.monotonic())]
        self._look()
        for name, work in (("watchdog", self._watch), ("watchdog-publish", self._publish)):
            threading.Thread(target=work, name=name, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._dead_man.close()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what runs inside against this phase's deadline; the clock of the phase around it
        stands still meanwhile."""
        self._deadlines.of(name)
        if threading.get_ident() != self._owner:
            raise RuntimeError(f"phase {name!r} begun in another thread than the watchdog's loop")
        began = time.monotonic()
        self._stack.append((name, began))
        self._entered += 1
        self._look()
        try:
            yield
        finally:
            self._stack.pop()
            outer, since = self._stack[-1]
            self._stack[-1] = outer, since + time.monotonic() - max(began, since)
            self._look()

    def beat(self, step: int) -> None:
        """A step was done (its scalars were read): the clocks begin anew."""
        now = time.monotonic()
        self._step = step
        self._stack[0] = "step", now
        self._stack[-1] = self._stack[-1][0], now
        self._look()

    def _look(self) -> None:
        """Publish the stack's top to the threads, in one assignment, and set the dead man."""
        phase, since = self._stack[-1]
        self._now = _Now(phase, since, self._step, self._entered)
        deadline = self._deadlines.of(phase)
        report_s = self._deadlines.report
        self._dead_man.set(
            since + deadline + report_s if deadline else 0.0,
            f"{self._name} is stuck in phase {phase} past its deadline of {deadline:g} s, its last "
            f"step done {self._step}, and its watchdog cannot run (some call keeps the GIL); its "
            f"stacks follow, then exit code {STUCK}",
            slack_s=report_s / 8,
        )

    @property
    def _name(self) -> str:
        return self.cluster.name if self.cluster else f"process {os.getpid()} of this machine"

    def _watch(self) -> None:
        while not self._over.wait(_TICK_S):
            now = self._now
            deadline = self._deadlines.of(now.phase)
            if deadline and time.monotonic() - now.since > deadline:
                self._end(now, deadline)

    def _publish(self) -> None:
        while not self._over.wait(_PUBLISH_S):
            if self.cluster and self.cluster.num_processes > 1:
                with contextlib.suppress(Exception):  # it may be gone; the loop will find out
                    self.cluster.put(_key(self.cluster.process_index), self._said())

    def _said(self) -> str:
        now, wall = self._now, time.time()
        since = wall - (time.monotonic() - now.since)
        return json.dumps(
            {**dataclasses.asdict(now), "name": self._name, "since": since, "at": wall}
        )

    def _end(self, now: _Now, deadline: float) -> None:
        lasted = time.monotonic() - now.since
        say(
            f"{self._name} is stuck: phase {now.phase} has lasted {lasted:.1f} s and its deadline "
            f"is {deadline:g} s; the last step done is {now.step}. The stacks of all threads:"
        )
        faulthandler.dump_traceback(file=2, all_threads=True)
        cluster, patience_s = self.cluster, self._deadlines.report / 4
        if cluster and cluster.num_processes > 1:
            within(patience_s, lambda: cluster.put(_key(cluster.process_index), self._said()))
            told = within(patience_s, lambda: others(cluster, now))
            say(told or "The other processes: the coordination service does not answer.")
        flush()
        if cluster and cluster.num_processes > 1 and cluster.process_index == 0:
            time.sleep(patience_s)  # it serves the others' keys: let them read
        os._exit(STUCK)


def _key(process_index: int) -> str:
    return f"watchdog/{process_index}"


def others(cluster: Cluster, now: Any) -> str:
    """What every other process last said, a line each, and the names of those that have not arrived
    where this one is (`now` has its `step` and `entered`)."""
    here = _place(now.step, now.entered)
    lines, missing, wall = [], [], time.time()
    for index in range(cluster.num_processes):
        if index == cluster.process_index:
            continue
        text = cluster.get(_key(index))
        if text is None:
            lines.append(f"  process {index}: has said nothing")
            missing.append(f"process {index}")
            continue
        said = json.loads(text)
        line = (
            f"  {said['name']}: phase {said['phase']} for {wall - said['since']:.1f} s, "
            f"last step done {said['step']}"
        )
        quiet_s = wall - said["at"]
        silent = quiet_s > _SILENT_S
        lines.append(line + (f", silent for {quiet_s:.0f} s" if silent else ""))
        if silent or _place(said["step"], said["entered"]) < here:
            missing.append(said["name"])
    verdict = (
        f"Not arrived: {', '.join(missing)}." if missing else "All others are as far as this one."
    )
    return "\n".join(["The other processes:", *lines, verdict])


def _place(step: int | None, entered: int) -> tuple[int, int]:
    return (-1 if step is None else step), entered
