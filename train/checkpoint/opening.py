"""Finding a step that is whole: damage is named file by file, and so is the step to go back to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from train.checkpoint import manifest
from train.checkpoint.arrays import MODEL, OPTIMIZER
from train.checkpoint.manifest import CheckpointError, DamageError
from train.checkpoint.retention import GoneError, pinned

Manifest = dict[str, Any]
Examine = Callable[[Path], tuple[Manifest | None, list[str]]]
_NAMED_FILES = 8


def newest(folder: Path) -> tuple[Path, Manifest]:
    """Folder and manifest of a run's newest complete step; its arrays are not looked at.

    Raises `CheckpointError` when there is none; the message says whether one was cut short.
    """
    folder = Path(folder).absolute()
    if not (steps := manifest.complete(folder)):
        begun = sorted(int(p.name) for p in manifest.step_folders(folder))
        detail = f" (step {begun[-1]} was cut short)" if begun else ""
        raise CheckpointError(f"{folder} holds no complete checkpoint{detail}; train there first")
    target = folder / str(steps[-1])
    return target, manifest.read(target)


def examine(
    target: Path,
    *,
    require: Callable[[Path, Manifest], None] | None = None,
    parts: Sequence[str] = (MODEL, OPTIMIZER),
    share: tuple[int, int] = (0, 1),
    checksums: bool = True,
) -> tuple[Manifest | None, list[str]]:
    """Manifest and damaged files of a step, of which process `share[0]` of `share[1]` reads its
    part. `require` sees the manifest before any of the bytes are read."""
    try:
        noted = manifest.read(target)
    except DamageError as problem:
        if not target.exists():
            raise GoneError(f"{target} was deleted; read a newer step") from None
        return None, [str(problem)]
    if require:
        require(target, noted)
    sizes = {
        name: file["bytes"]
        for name, file in noted["files"].items()
        if "/" not in name or name.split("/", 1)[0] in parts
    }
    names = manifest.share(sizes, *share)
    return noted, manifest.damage(target, noted["files"], names, checksums=checksums)


def pick(
    folder: Path, steps: Sequence[int], *, examined: Examine, fall_back: bool
) -> tuple[int, Manifest, list[int]]:
    """The newest of these steps that is whole, its manifest, and the damaged ones that are newer.

    Raises `DamageError` when the newest is damaged and not `fall_back`, or when none is whole.
    """
    damaged: dict[int, list[str]] = {}
    for step in sorted(steps, reverse=True):
        noted, problems = examined(folder / str(step))
        if noted is None or problems:
            damaged[step] = problems
            continue
        if not damaged:
            return step, noted, []
        told = f"{_told(folder, damaged)}; step {step} is whole"
        if not fall_back:
            raise DamageError(
                f"{told}: go on from it with fall_back, or remove {folder / str(max(damaged))}"
            )
        logging.error("%s and is used instead", told)
        return step, noted, list(damaged)
    raise DamageError(
        f"{_told(folder, damaged)}; no other step is whole: restore {folder} from a copy, or "
        "train again in another --workdir"
    )


def _told(folder: Path, damaged: dict[int, list[str]]) -> str:
    told = []
    for step, problems in damaged.items():
        more = len(problems) - _NAMED_FILES
        files = "; ".join(problems[:_NAMED_FILES]) + (f"; and {more} more" if more > 0 else "")
        told.append(f"{folder / str(step)} is damaged ({files})")
    return ", ".join(told)


def verify(folder: Path, *, step: int | None = None) -> Manifest:
    """Read every byte of a step (the newest) and return its manifest.

    Raises `DamageError` that names each truncated, missing or altered file, and the newest earlier
    step that is whole.
    """
    folder = Path(folder).absolute()
    steps = _up_to(folder, step)
    return pick(folder, steps, examined=examine, fall_back=False)[1]


def _up_to(folder: Path, step: int | None) -> list[int]:
    steps = manifest.complete(folder)
    if step is None:
        newest(folder)
        return steps
    if step not in steps:
        there = ", ".join(map(str, steps)) or "none"
        raise CheckpointError(f"{folder} holds no complete step {step}; there: {there}")
    return [s for s in steps if s <= step]


@contextlib.contextmanager
def opened(
    folder: Path,
    *,
    step: int | None = None,
    parts: Sequence[str] = (MODEL, OPTIMIZER),
    fall_back: bool = False,
    checksums: bool = True,
) -> Iterator[tuple[Path, Manifest]]:
    """A step (the newest) found whole in these parts (without `checksums`, of the right sizes), and
    pinned while the block runs where its folder can be written."""
    folder = Path(folder).absolute()
    with contextlib.ExitStack() as pins:

        def examined(target: Path) -> tuple[Manifest | None, list[str]]:
            if os.access(target, os.W_OK):
                pins.enter_context(pinned(folder, int(target.name)))
            return examine(target, parts=parts, checksums=checksums)

        for attempt in range(3):
            try:
                found, noted, _ = pick(
                    folder, _up_to(folder, step), examined=examined, fall_back=fall_back
                )
                break
            except GoneError:  # the run has saved a newer step meanwhile
                if attempt == 2 or step is not None:
                    raise
        yield folder / str(found), noted
