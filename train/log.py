"""What a run leaves for people: a progress bar, `metrics.jsonl`, TensorBoard and pictures."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from PIL import Image
from tqdm import tqdm

from train.readings import Readings

# Where there is PyTorch, tensorboardX imports it, which takes longer than all that a run needs.
_torch = sys.modules.setdefault("torch", None)  # type: ignore  # None: not to be found
try:
    from tensorboardX import SummaryWriter
    from tensorboardX.summary import scalar
finally:
    if _torch is None:
        del sys.modules["torch"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluator found: numbers, pictures as uint8 [Y X 3], alarms, each a sentence that a
    person should read, and texts to look at, as Markdown."""

    scalars: Mapping[str, float]
    pictures: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    alarms: Sequence[str] = ()
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)


# the loop's own numbers, which a bar shows after a task's
_NOT_FIRST = ("gradient_norm", "skipped", "skipped_in_a_row", "skipped_total", "weight")
_NUM_ALARMS = "eval/num_alarms"  # what every evaluation's record has


def _refuse_not_finite(step: int, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"{name} became {value} at step {step}: lower a learning rate")


def for_the_bar(values: Mapping[str, float], *, most: int = 3) -> dict[str, str]:
    """The few numbers that a terminal has room for: the loss, then a task's own; those of the
    machinery and of a part (with a slash) only if there is room left."""
    last = lambda name: name in _NOT_FIRST or "/" in name  # noqa: E731
    order = sorted(values, key=lambda name: (name != "loss", last(name)))
    return {name: f"{values[name]:.4g}" for name in order[:most]}


class Log:
    """Writes from `step` on; records past it, left by a killed run, are dropped.

    Of several processes only one is `active`: the others read and check the same scalars at the
    same steps, and write and show nothing.

    A step's scalars are read when the next step's come (`later`), so that the host does not wait
    for the device; every one is checked (and given to `see`), and every `every_steps`-th is
    written. What is not finite is an error, unless the guard has left the step out (`skipped`):
    then it is written, with null for such a value.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        step: int,
        num_steps: int,
        every_steps: int,
        see: Callable[[int, Mapping[str, float]], None] = lambda *_: None,
        active: bool = True,
    ) -> None:
        self.workdir = workdir
        self._active = active
        self._every_steps = every_steps
        self._far = jax.default_backend() != "cpu"  # else asking takes longer than reading
        self._see = see
        self._late: tuple[int, Readings] | None = None
        self._beside: Callable[[], Mapping[str, float]] = dict
        records = _records(workdir, lambda row: row["step"] <= step) if active else Path(os.devnull)
        self._file = records.open("a")
        self._board = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1, write_to_disk=active,
            max_queue=1000,  # ten are soon there, and the loop would wait for the writer's thread
        )  # fmt: skip
        self._bar = tqdm(
            total=num_steps, initial=step, desc=workdir.name, unit="step", dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 30.0, disable=not active,
        )  # fmt: skip

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def beside(self, rates: Callable[[], Mapping[str, float]]) -> None:
        """Record with the scalars of every `every_steps`-th step what `rates` gives then (such as
        `train.supervision.meter.Meter.rates`)."""
        self._beside = rates

    def later(self, step: int, scalars: Readings) -> None:
        """One more step was dispatched: keep its scalars, and read those of the step before."""
        self._read(write=False)
        if self._far:  # on their way as soon as they are there
            scalars.copy_to_host_async()
        self._late = step, scalars
        self._bar.update()

    def now(self, *, write: bool = True) -> dict[str, float]:
        """Wait for the last step's scalars, record them whatever its number (without `write`, only
        if `later` would), and return those that are finite."""
        return self._read(write=write)

    def _read(self, *, write: bool) -> dict[str, float]:
        if self._late is None:
            return {}
        (step, late), self._late = self._late, None
        values = late.read()
        skipped = bool(values.get("skipped"))
        due = self._every_steps > 0 and step % self._every_steps == 0
        if write or skipped or due:
            self.scalars(step, {**values, **(self._beside() if due else {})})
            self._bar.set_postfix(for_the_bar(values), refresh=False)
        else:
            _refuse_not_finite(step, values)
        self._see(step, values)
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers; raises `FloatingPointError` at one that is not finite, unless they are a
        skipped step's."""
        if not values.get("skipped"):
            _refuse_not_finite(step, values)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if shown := [scalar(name, value) for name, value in finite.items()]:
            for other in shown[1:]:  # one event: each goes to the writer's thread through a pipe
                shown[0].MergeFrom(other)
            board: Any = self._board.file_writer
            board.add_summary(shown[0], step)
        self._file.write(json.dumps({"step": step, **dict.fromkeys(values), **finite}) + "\n")
        self._file.flush()

    def evaluation(self, step: int, found: Evaluation) -> dict[str, float]:
        """Record an evaluation's numbers and texts, and its pictures as PNG files; say its alarms.
        Returns the numbers by the names under which they are recorded."""
        values = {f"eval/{k}": float(v) for k, v in found.scalars.items()}
        self.scalars(step, {**values, _NUM_ALARMS: float(len(found.alarms))})
        if self._active:
            self._show(step, found)
        return values

    def _show(self, step: int, found: Evaluation) -> None:
        for alarm in found.alarms:
            logging.warning("step %d of %s: %s", step, self.workdir.name, alarm)
            self._board.add_text("alarm", alarm, step)
        for name, text in found.texts.items():
            self._board.add_text(name, text, step)
        folder = self.workdir / "pictures"
        for name, picture in found.pictures.items():
            folder.mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / f"{name}_{step:06d}.png")
            self._board.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flush everything."""
        self._bar.close()
        self._board.close()
        self._file.close()


def forget_evaluation(workdir: Path, step: int) -> None:
    """Drop the record of an evaluation that is to be made again, before a `Log` is opened."""
    _records(workdir, lambda row: row["step"] != step or _NUM_ALARMS not in row)


def _records(workdir: Path, stays: Callable[[Mapping[str, Any]], bool]) -> Path:
    """`metrics.jsonl` with the records that stay alone; what was cut through by a kill is gone."""
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "metrics.jsonl"
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            if stays(json.loads(line)):
                kept.append(line + "\n")
        except json.JSONDecodeError:
            break
    draft = workdir / "metrics.jsonl.part"
    draft.write_text("".join(kept))
    os.replace(draft, path)
    return path
