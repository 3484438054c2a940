"""A run followed while it trains: evaluated, and again whenever a model has a newer checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from evals.results import Results, flat
from train.checkpoint import CheckpointError
from train.export.folder import saved_step

MODELS = ("tokenizer", "planner", "decoder")
SCORES = "scores.jsonl"


class Opened(Protocol):
    """Three models as they were read."""

    @property
    def steps(self) -> tuple[int, ...]:
        """After how many steps each of `MODELS` was saved."""
        ...


B = TypeVar("B", bound=Opened)


def newest_steps(run: Path) -> tuple[int, ...] | None:
    """The newest complete checkpoint of each of `MODELS` (or its `weights/`), as numbers of steps;
    None as long as one has none."""
    found = [saved_step(run / name) for name in MODELS]
    saved = tuple(step for step in found if step is not None)
    return saved if len(saved) == len(found) else None


def every(seconds: float) -> Iterator[None]:
    """Now, and again and again so long after the last time was done with."""
    while True:
        yield
        time.sleep(seconds)


def watch(
    run: Path,
    out: Path,
    looks: Iterable[None],
    *,
    open_run: Callable[[Path], B],
    evaluate: Callable[[B, Path], Results],
) -> None:
    """At each of `looks` evaluate the run if it has other checkpoints than at the last evaluation:
    into a folder of `out` that is named by their steps, with a line of all scores in `SCORES`.

    Checkpoints that training removes while they are read are left for newer ones, with a sentence;
    what else goes wrong while they are read is raised.
    """
    out.mkdir(parents=True, exist_ok=True)
    done = None
    for _ in looks:
        found = newest_steps(run)
        if found is None or found == done:
            continue
        try:
            opened = open_run(run)
        except (CheckpointError, OSError) as problem:
            if newest_steps(run) == found:  # it is still there, and so no reason to look again
                raise
            print(f"{run}: a checkpoint was removed while it was read; newer ones next: {problem}")
            continue
        done = opened.steps  # which may be newer than what was found
        folder = out / "-".join(map(str, done))
        row = {"steps": done, "folder": str(folder), **flat(evaluate(opened, folder))}
        with (out / SCORES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
