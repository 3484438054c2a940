"""What a run leaves for people: a progress bar, `metrics.jsonl`, TensorBoard and pictures."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter
from tqdm import tqdm


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluator found: numbers, and pictures as uint8 [Y X 3]."""

    scalars: Mapping[str, float]
    pictures: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Log:
    """Writes from `step` on; records past it, left by a killed run, are dropped."""

    def __init__(self, workdir: Path, *, step: int, num_steps: int) -> None:
        self.workdir = workdir
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / "metrics.jsonl"
        kept = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except json.JSONDecodeError:
                break  # the line a kill cut through
        path.write_text("".join(kept))
        self._file = path.open("a")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)
        self._bar = tqdm(
            total=num_steps, initial=step, desc=workdir.name, unit="step", dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
        )  # fmt: skip

    def advance(self) -> None:
        """One more step was dispatched."""
        self._bar.update()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers; raises `FloatingPointError` at one that is not finite."""
        for name, value in values.items():
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"{name} became {value} at step {step}: lower a learning rate"
                )
            self._board.add_scalar(name, value, step)
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        self._bar.set_postfix({k: f"{v:.4g}" for k, v in list(values.items())[:2]}, refresh=False)

    def evaluation(self, step: int, found: Evaluation) -> None:
        """Record an evaluation's numbers, and its pictures as PNG files."""
        self.scalars(step, {f"eval/{k}": float(v) for k, v in found.scalars.items()})
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
