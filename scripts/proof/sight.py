"""What can be seen of a run from outside: where it is, by the files in its workdir alone."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

_UNFINISHED = ".orbax-checkpoint-tmp"
PHASES = ("start", "compile", "step", "evaluation", "save")


def records(workdir: Path) -> dict[int, dict[str, Any]]:
    """What `metrics.jsonl` says of each step, all its lines together."""
    found: dict[int, dict[str, Any]] = {}
    path = workdir / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # its end is not written yet
            break
        found.setdefault(record.pop("step"), {}).update(record)
    return found


def has_evaluation(record: dict[str, Any]) -> bool:
    """Whether a step's record has an evaluator's numbers."""
    return any(name.startswith("eval/") for name in record)


def saved(workdir: Path) -> list[int]:
    """The complete steps, oldest first."""
    folders = (workdir / "checkpoints").glob("*/manifest.json")
    return sorted(int(path.parent.name) for path in folders if path.parent.name.isdigit())


@dataclasses.dataclass(frozen=True)
class Glance:
    """One look. `opened`: this start has begun its log, so it has restored or made its state;
    `step` is the last one that has a record (before that, of an earlier start)."""

    opened: bool
    step: int
    evaluated: bool
    saving: bool

    def phase(self, first: int, evaluations: Collection[int]) -> str:
        """One of `PHASES`, for a start that goes on from step `first` of a run that evaluates at
        these steps."""
        if not self.opened:
            return "start"
        if self.step <= first:
            return "compile"
        if self.step in evaluations and not self.evaluated:
            return "evaluation"
        return "save" if self.saving else "step"


class Sight:
    """Looks at one start of a run; made before the start."""

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._logs = set(self._event_files())
        self._metrics: tuple[Any, int, bool] = (None, 0, False)

    def _event_files(self) -> Iterator[Path]:
        return (self._workdir / "tensorboard").glob("*")

    def look(self) -> Glance:
        """Where the start is now; it takes less than a millisecond."""
        opened = bool(set(self._event_files()) - self._logs)
        return Glance(opened, *self._last_record(), opened and self._is_saving())

    def _last_record(self) -> tuple[int, bool]:
        path = self._workdir / "metrics.jsonl"
        try:
            stat = path.stat()
        except FileNotFoundError:
            return 0, False
        key = stat.st_ino, stat.st_size
        if key != self._metrics[0]:
            found = records(self._workdir)
            step = max(found, default=0)
            self._metrics = key, step, step > 0 and has_evaluation(found[step])
        return self._metrics[1:]

    def _is_saving(self) -> bool:
        for path in (self._workdir / "checkpoints").glob("*"):
            begun = path.name.isdigit() and not (path / "manifest.json").exists()
            if begun or _UNFINISHED in path.name:
                return True
        return False


def durations(
    glances: Sequence[tuple[float, Glance]], evaluations: Collection[int], *, first: int = 0
) -> dict[str, float]:
    """Seconds that each phase lasts in a start from step `first` whose glances (with their times,
    when they changed) these are: the median where there are several; a phase that was not seen to
    its end is missing."""
    lasted: dict[str, list[float]] = {}
    for (at, glance), (until, _) in itertools.pairwise(glances):
        lasted.setdefault(glance.phase(first, evaluations), []).append(until - at)
    typical = {phase: statistics.median(seconds) for phase, seconds in lasted.items()}
    typical |= {phase: sum(lasted[phase]) for phase in ("start", "compile") if phase in lasted}
    typical.pop("save", None)  # it goes on in the background of other phases
    saves, began = [], None
    for at, glance in glances:
        if glance.saving and began is None:
            began = at
        elif not glance.saving and began is not None:
            saves.append(at - began)
            began = None
    return typical | ({"save": statistics.median(saves)} if saves else {})
