"""A trace of a few steps for TensorBoard or Perfetto, where one was asked for."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import jax
from absl import logging

P = ParamSpec("P")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """`steps` as "10:13" traces steps 10, 11 and 12 (steps count from 1), "10" step 10, "" none.

    Early steps compile: leave out the first two.
    """

    steps: str = ""

    def __post_init__(self) -> None:
        self.range  # noqa: B018  # raises

    @property
    def range(self) -> range:
        """The steps to trace; raises `ValueError` for a text that names none."""
        if not self.steps:
            return range(0)
        found = re.fullmatch(r"(\d+)(?::(\d+))?", self.steps)
        if found is None:
            raise ValueError(
                f"profile.steps {self.steps!r} is no range of steps: give first:end, as in 10:13 "
                "for steps 10, 11 and 12"
            )
        first = int(found[1])
        end = first + 1 if found[2] is None else int(found[2])
        if first < 1 or end <= first:
            raise ValueError(
                f"profile.steps {self.steps!r} has no step in it: the first is at least 1 and the "
                "end is past it"
            )
        return range(first, end)


class Profiler:
    """Traces the steps of a config into `workdir/profile`, from before the first to after the last
    is done; the rest of the loop between them (data, logging) is in it too."""

    def __init__(
        self, config: ProfileConfig, workdir: Path, *, num_steps: int, active: bool = True
    ) -> None:
        """Raises `ValueError` for steps past the run's last; a process that is not `active` traces
        nothing."""
        self._steps = config.range
        if self._steps and self._steps[-1] > num_steps:
            raise ValueError(
                f"profile.steps {config.steps!r} ends past step {num_steps}, the run's last: give "
                "earlier steps"
            )
        if not active:
            self._steps = range(0)
        self._folder = workdir / "profile"
        self._tracing = False

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, step: int, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `call` returns; traced under the step's number if it was asked for, and waited for
        if it is the last one of these."""
        if step not in self._steps:
            return call(*args, **kwargs)
        if not self._tracing:  # a restart may begin in the middle
            self._folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            found = call(*args, **kwargs)
        if step == self._steps[-1]:
            jax.block_until_ready(found)
            self._stop()
            logging.info("traced steps %d to %d: %s", self._steps[0], step, self._folder)
        return found

    def _stop(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
