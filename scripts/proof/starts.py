"""One start of a run: its processes launched together, watched, and struck at a chosen moment."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from scripts.launch import gang, local
from scripts.proof.sight import Glance, Sight, saved

_LOOK_S = 0.003


@dataclasses.dataclass(frozen=True)
class Layout:
    """How many processes, with how many emulated devices each; `overrides` are of the config."""

    processes: int
    devices_per_process: int
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        shape = f"{self.processes}x{self.devices_per_process}"
        return " ".join([shape, *(o.removeprefix("--config.") for o in self.overrides)])


@dataclasses.dataclass(frozen=True)
class Blow:
    """A signal to one process, once the start is in this phase at this step or later: `wait_s`
    seconds after that, or when the phase is over, should it be shorter than was thought."""

    signum: signal.Signals
    process: int
    phase: str
    step: int = 0
    wait_s: float = 0.0


@dataclasses.dataclass
class Outcome:
    """What a start came to. `hit` is the phase and the last recorded step when the blow fell, None
    if it did not; `codes` are all processes' exit codes (128 + n: by signal n)."""

    went_on_from: int
    codes: dict[str, int] = dataclasses.field(default_factory=dict)
    hit: tuple[str, int] | None = None
    hit_s: float = 0.0
    lasted_s: float = 0.0
    hung: bool = False
    glances: list[tuple[float, Glance]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Starts `scripts/train.py` of one config, in one workdir after another, with `env` beside what
    `scripts/launch/local.py` gives its processes."""

    config: Path
    overrides: tuple[str, ...]
    timeout_s: float
    compiled: Path
    evaluations: Collection[int] = ()
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def start(self, workdir: Path, layout: Layout, blow: Blow | None = None) -> Outcome:
        """Run to the end, whatever it is. The processes' output goes to `output.txt` beside the
        workdir's files; they keep compiled programs in `compiled`, as on accelerators."""
        script = Path(__file__).resolve().parents[1] / "train.py"
        command = ["python", str(script), "--config", str(self.config), "--workdir", str(workdir)]
        members = local.members(
            [*command, *self.overrides, *layout.overrides],
            processes=layout.processes, devices_per_process=layout.devices_per_process,
            env={"JAX_COMPILATION_CACHE_DIR": str(self.compiled), **self.env},
        )  # fmt: skip
        workdir.mkdir(parents=True, exist_ok=True)
        # Survivors of SIGKILL wait for the dead in vain; those asked to stop need time to save.
        grace_s = 2.0 if blow and blow.signum == signal.SIGKILL else 60.0
        with (
            (workdir / "output.txt").open("a") as output,
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
            _Watch(workdir, blow, len(members), self) as watch,
        ):
            gang.run(members, gang.Rules(grace_s=grace_s), watch)
        return watch.outcome


class _Watch(threading.Thread):
    """Looks at the start until the last process has ended, and strikes. It runs only while all
    processes are there, so that nothing is forked beside it."""

    def __init__(self, workdir: Path, blow: Blow | None, count: int, trainer: Trainer) -> None:
        super().__init__(name="watch", daemon=True)
        self._blow, self._count, self._trainer = blow, count, trainer
        self._sight, self._began = Sight(workdir), time.monotonic()
        self._pids: dict[str, int] = {}
        self._over = threading.Event()
        self.outcome = Outcome(went_on_from=max(saved(workdir), default=0))

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self.ident is not None:
            self.join()
        self.outcome.lasted_s = time.monotonic() - self._began

    def started(self, name: str, pid: int) -> None:
        self._pids[name] = pid
        if len(self._pids) == self._count:
            self.start()

    def ended(self, name: str, code: int) -> None:
        del self._pids[name]
        self.outcome.codes[name] = code
        if not self._pids:
            self._over.set()

    def _send(self, signum: int, names: Sequence[str]) -> None:
        for pid in [self._pids[name] for name in names if name in self._pids]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    def run(self) -> None:
        blow, first = self._blow, self.outcome.went_on_from
        place: Callable[[Glance], str] = lambda g: g.phase(first, self._trainer.evaluations)  # noqa: E731
        while not self._over.wait(_LOOK_S):
            glance, now = self._sight.look(), time.monotonic() - self._began
            if not self.outcome.glances or self.outcome.glances[-1][1] != glance:
                self.outcome.glances.append((now, glance))
            if blow and _is_time(blow, place(glance), glance.step):
                seen = self._wait(blow.wait_s, glance, place)
                if str(blow.process) in self._pids and len(self._pids) == self._count:
                    self._send(blow.signum, [str(blow.process)])
                    self.outcome.hit = place(seen), seen.step if seen.opened else first
                    self.outcome.hit_s = time.monotonic() - self._began
                blow = None
            if now > self._trainer.timeout_s and not self.outcome.hung:
                self.outcome.hung = True
                self._send(signal.SIGKILL, list(self._pids))

    def _wait(self, wait_s: float, glance: Glance, place: Callable[[Glance], str]) -> Glance:
        """Where the start is after these seconds, or at once when it leaves this phase."""
        began, phase = time.monotonic(), place(glance)
        while time.monotonic() < began + wait_s and not self._over.wait(_LOOK_S):
            glance = self._sight.look()
            if place(glance) != phase:
                break
        return self._sight.look()


def _is_time(blow: Blow, phase: str, step: int) -> bool:
    """Whether the phase has come; a start is never too early, and any moment after is a step's."""
    if blow.phase in ("start", "compile"):
        return blow.phase == "start" or phase != "start"
    begun = phase not in ("start", "compile")
    return begun and step >= blow.step and blow.phase in (phase, "step")
