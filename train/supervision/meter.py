"""Where the time of a run goes: rates of an interval, and goodput over all restarts."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from absl import logging

from train.supervision.watchdog import PHASES

FILE = "goodput.json"


@dataclasses.dataclass
class Ledger:
    """What `goodput.json` keeps from the first start of a run on, in seconds.

    `productive_s` is that of steps done for the first time; `lost_s` the rest by cause: init,
    restore, compile, data, evaluation, save, `redone` (steps that were done before a restart went
    back behind them) and `down`, between what was last written and the next start, with steps that
    nothing had been written of. They add up to the time from `started` to `last`, both in seconds
    since 1970. `step` is the furthest step done.
    """

    started: float
    last: float
    num_starts: int = 0
    step: int = 0
    productive_s: float = 0.0
    lost_s: dict[str, float] = dataclasses.field(default_factory=dict)

    def lose(self, cause: str, seconds: float) -> None:
        """Book seconds on a cause."""
        self.lost_s[cause] = self.lost_s.get(cause, 0.0) + seconds

    @property
    def goodput(self) -> float:
        """Productive over all seconds booked, 0 to 1."""
        total = self.productive_s + sum(self.lost_s.values())
        return self.productive_s / total if total > 0 else 0.0


def read_ledger(workdir: Path) -> Ledger | None:
    """The ledger of a run, None if there is none; one that is damaged is said to be, and left."""
    path = Path(workdir) / FILE
    try:
        fields = json.loads(path.read_text())
        fields.pop("goodput")
        ledger = Ledger(**fields)
        ledger.goodput  # noqa: B018  # raises if these are no numbers
        return ledger
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        logging.warning("%s cannot be read (%s): goodput is counted anew from here", path, problem)
        return None


class Meter:
    """Books every second of this process on one cause.

    Make it first thing in the process, and `open` it when the workdir and the processes are known.
    Until `begin` the time outside of every span counts as `init`, from then on as the step's. All
    processes count; the first one writes.

        meter = Meter()
        meter.open(workdir, active=cluster.is_first, peak_flops_per_s=None)
        with meter.span("restore"): ...
        meter.begin()
        with meter.span("data"): batch = next(batches)
        ... the step ...
        meter.done(step, load.amounts, flops=load.flops)
        log.scalars(step, meter.rates()); meter.write()
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._since = clock()
        self._epoch = wall() - self._since  # seconds since 1970 when the clock is at 0
        self._stack = ["init"]
        self._ledger = Ledger(started=self._since + self._epoch, last=self._since + self._epoch)
        self._pending_s = 0.0  # of the step that is not done
        self._compiled = False  # in that step
        self._workdir: Path | None = None
        self._active = False
        self._peak: float | None = None
        self._begin_interval()

    def open(self, workdir: Path, *, active: bool, peak_flops_per_s: float | None) -> None:
        """Go on with the ledger of this workdir; `active` processes write it. The peak is that of
        all devices of the run, None if it is not known, and MFU is then left out."""
        self._workdir, self._active, self._peak = Path(workdir), active, peak_flops_per_s
        earlier = read_ledger(self._workdir)
        if earlier is not None:
            earlier.lose("down", max(0.0, self._ledger.started - earlier.last))
            for cause, seconds in self._ledger.lost_s.items():
                earlier.lose(cause, seconds)
            self._ledger = earlier
        self._ledger.num_starts += 1

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.write()

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Book what runs inside on this phase (a name of `train.supervision.watchdog.PHASES`), and
        not on the span around it."""
        if name not in PHASES:
            raise ValueError(f"no span is called {name!r}; there are {', '.join(PHASES)}")
        self._settle()
        self._stack.append(name)
        self._compiled = self._compiled or name == "compile"
        try:
            yield
        finally:
            self._settle()
            self._stack.pop()

    def begin(self) -> None:
        """The loop begins: time outside of spans is the steps' from here."""
        self._settle()
        self._stack[0], self._compiled = "step", False
        self._begin_interval()

    def done(self, step: int, amounts: Mapping[str, float], *, flops: float = 0.0) -> None:
        """A step was done, with so many rows, tokens and model FLOPs of the global batch."""
        self._settle()
        if step > self._ledger.step:
            self._ledger.step = step
            self._ledger.productive_s += self._pending_s
        else:
            self._ledger.lose("redone", self._pending_s)
        if self._compiled:
            self._interval_s["step"] -= self._pending_s
        else:
            self._num_steps += 1
            self._flops += flops
            self._amounts.update(amounts)
        self._pending_s, self._compiled = 0.0, False

    def rates(self) -> dict[str, float]:
        """Numbers of the steps done since the last call, {} if there are none, and the goodput so
        far, under `speed/`.

        Rates are over the time of steps and waiting for data alone: not over evaluations, saves and
        compiling, which goodput has, and without the steps in which something was compiled.
        `data_wait` is the share of waiting in that time.
        """
        self._settle()
        loop_s = self._interval_s["step"] + self._interval_s["data"]
        if not self._num_steps or loop_s <= 0:
            return {}
        rates = {"steps_per_s": self._num_steps / loop_s}
        rates |= {f"{name}_per_s": amount / loop_s for name, amount in self._amounts.items()}
        if self._flops:
            rates["model_flops_per_s"] = self._flops / loop_s
            if self._peak:
                rates["mfu"] = self._flops / loop_s / self._peak
        rates["data_wait"] = self._interval_s["data"] / loop_s
        rates["goodput"] = self._ledger.goodput
        self._begin_interval()
        return {f"speed/{name}": value for name, value in rates.items()}

    def write(self) -> None:
        """Put the ledger into the workdir, whole or not at all; does nothing in a process that is
        not active, or before `open`. What was spent on a step that is not done is left to the next
        write: after a kill it counts as down."""
        self._settle()
        self._ledger.last = self._since + self._epoch - self._pending_s
        if self._workdir is None or not self._active:
            return
        self._workdir.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**dataclasses.asdict(self._ledger), "goodput": self._ledger.goodput})
        draft = self._workdir / f"{FILE}.part"
        draft.write_text(text + "\n")
        os.replace(draft, self._workdir / FILE)

    def _begin_interval(self) -> None:
        self._interval_s: dict[str, float] = collections.defaultdict(float)
        self._amounts: collections.Counter[str] = collections.Counter()
        self._num_steps, self._flops = 0, 0.0

    def _settle(self) -> None:
        """Book the time since the last look on the innermost span."""
        now, name = self._clock(), self._stack[-1]
        seconds, self._since = now - self._since, now
        self._interval_s[name] += seconds
        if name == "step":
            self._pending_s += seconds
        else:
            self._ledger.lose(name, seconds)
