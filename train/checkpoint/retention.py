"""When a run saves, which steps it keeps, and how a step goes without taking a reader's with it.

A reader *pins* what it reads. Deleting marks the step, looks for pins, and only then renames it
away; a reader writes its pin, and only then looks for the mark: one of the two always sees the
other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from absl import logging

from train.checkpoint.manifest import DOOMED, NAME, PINS, CheckpointError, complete

_PATIENCE_S = 2.0  # how long a reader waits for a mark to become a deletion or be taken back
_MARK_HOLDS_S = 60.0  # an older mark was left by a process that died


class GoneError(CheckpointError):
    """A step that was deleted between being found and being read."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep; 0 and "" turn a rule off, and a step that any rule keeps
    stays.

    `keep` counts the newest steps; every `keep_every_steps`-th step stays for ever; `keep_best`
    are those with the best `best_metric`, as their manifests have it, the newer of two equal ones.
    A pin older than `pin_hours` holds nothing any more. `background` false makes `save` wait until
    the step is complete; `timeout_s` bounds one save, waiting for other processes included.
    """

    every_steps: int = 500
    every_minutes: float = 0.0
    keep: int = 2
    keep_every_steps: int = 0
    best_metric: str = ""
    best_mode: str = "max"
    keep_best: int = 0
    pin_hours: float = 24.0
    background: bool = True
    timeout_s: int = 1200

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"keep is {self.keep}: the newest step always stays; give 1 or more")
        for name in ("every_steps", "every_minutes", "keep_every_steps", "keep_best", "pin_hours"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        if self.best_mode not in ("max", "min"):
            raise ValueError(f"best_mode is {self.best_mode!r}; give max or min")
        if bool(self.keep_best) != bool(self.best_metric):
            raise ValueError("keep_best and best_metric go together: give both or neither")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s is {self.timeout_s}; give seconds above 0")


class Cadence:
    """Says at each step whether to save.

    With `every_minutes`, `clock_s` must be the same number in all processes, or one would save
    while another goes on: let one process read its clock and hand it round inside a collective of
    the step that runs anyway, as an int32 of whole seconds since its start (float32 cannot hold an
    epoch), or by `cluster.agree`. The answer is then a function of (step, clock_s) alone.
    """

    def __init__(self, config: CheckpointConfig) -> None:
        self._config = config
        self._since_s: float | None = None

    def due(self, step: int, clock_s: float | None) -> bool:
        """Whether to save after this step; a yes starts the minutes anew."""
        every_steps, wait_s = self._config.every_steps, 60 * self._config.every_minutes
        if clock_s is not None and self._since_s is None:
            self._since_s = clock_s
        by_steps = every_steps > 0 and step % every_steps == 0
        by_clock = False
        if wait_s and clock_s is not None and self._since_s is not None:
            by_clock = clock_s - self._since_s >= wait_s
        if by_steps or by_clock:
            self._since_s = clock_s
        return by_steps or by_clock


def kept(metrics: Mapping[int, Mapping[str, float]], config: CheckpointConfig) -> set[int]:
    """The steps that stay, of complete ones and their metrics; a metric that is missing or not
    finite makes no step a best one."""
    steps = sorted(metrics)
    stay = set(steps[-config.keep :])
    if config.keep_every_steps:
        stay |= {step for step in steps if step % config.keep_every_steps == 0}
    sign = 1 if config.best_mode == "max" else -1
    values = {step: metrics[step].get(config.best_metric, math.nan) for step in steps}
    finite = [step for step in steps if math.isfinite(values[step])]
    ranked = sorted(finite, key=lambda step: (sign * values[step], step), reverse=True)
    return stay | set(ranked[: config.keep_best])


def live_pins(target: Path, pin_hours: float) -> list[str]:
    """Who reads a step: host and process of each pin that is not too old."""
    readers = []
    for path in sorted((target / PINS).glob("*.json")):
        try:
            pin = json.loads(path.read_text())
            age_s = time.time() - pin["time"]
            who = f"{pin['host']}:{pin['pid']}"
        except FileNotFoundError:
            continue  # just released
        except (ValueError, KeyError, TypeError):  # being written
            age_s, who = time.time() - path.stat().st_mtime, path.stem
        if age_s < 3600 * pin_hours:
            readers.append(who)
    return readers


@contextlib.contextmanager
def pinned(folder: Path, step: int) -> Iterator[Path]:
    """Hold a complete step against deletion while the block runs; gives the step's folder.

    Raises `GoneError` when the step is gone or going, `CheckpointError` when its folder cannot be
    written.
    """
    target = Path(folder).absolute() / str(step)
    host, pid = socket.gethostname(), os.getpid()
    pin = target / PINS / f"{host}-{pid}-{uuid.uuid4().hex[:8]}.json"
    try:
        if not (target / NAME).exists():
            raise FileNotFoundError
        pin.parent.mkdir(exist_ok=True)
        pin.write_text(json.dumps({"host": host, "pid": pid, "time": time.time()}))
    except FileNotFoundError:
        there = ", ".join(map(str, complete(target.parent))) or "none"
        raise GoneError(
            f"{target} is no complete step any more; read one of those there: {there}"
        ) from None
    except OSError as problem:
        raise CheckpointError(
            f"{target} cannot be pinned ({problem}): make it writable, or read a copy of it"
        ) from problem
    try:
        _outlast(target)
        yield target
    finally:
        pin.unlink(missing_ok=True)


def _outlast(target: Path) -> None:
    """Wait until a step that was marked is gone (raises `GoneError`) or stays after all."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            marked = time.time() - (target / DOOMED).stat().st_mtime < _MARK_HOLDS_S
        except FileNotFoundError:
            marked = False
        if not (target / NAME).exists() or (marked and time.monotonic() > deadline):
            raise GoneError(f"{target} is being deleted; read a newer step")
        if not marked:
            return
        time.sleep(0.02)


def remove(target: Path) -> None:
    """Delete a step so that nobody ever sees half of it: rename first."""
    aside = target.with_name(target.name + ".deleted")
    if aside.exists():
        shutil.rmtree(aside)
    os.rename(target, aside)
    shutil.rmtree(aside)


def remove_unless_pinned(target: Path, pin_hours: float) -> bool:
    """Delete a step that nobody reads; says whether it is gone."""
    mark = target / DOOMED
    mark.touch()
    if readers := live_pins(target, pin_hours):
        mark.unlink()
        logging.info("%s stays while %s read(s) it", target, ", ".join(readers))
        return False
    remove(target)
    return True
