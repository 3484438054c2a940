"""What two runs came to, side by side: every recorded number and the hashes of the last state."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.proof.sight import records, saved

_PARTS = ("params", "extra", "opt", "ema", "guard", "step")
_TIMES = "speed/"  # recorded numbers that are clocks


@dataclasses.dataclass(frozen=True)
class Ending:
    """The last saved step of a run: SHA-256 of each part of the state, and its data position."""

    step: int
    hashes: Mapping[str, str]
    data_position: Mapping[str, Any]

    def rows(self) -> dict[str, str]:
        """Each thing that has to be equal, as text."""
        position = json.dumps(self.data_position, sort_keys=True)
        return {**self.hashes, "data position": position}


def ending(workdir: Path, step: int | None = None) -> Ending:
    """Read the newest step of a run, or another one, its arrays as they are on the disk."""
    # JAX, which must not be there when processes are forked
    from train.checkpoint import arrays, fingerprint, manifest

    target = workdir / "checkpoints" / str(saved(workdir)[-1] if step is None else step)
    noted = manifest.read(target)
    found = arrays.read(target, dict.fromkeys(noted["arrays"]))
    hashes = {}
    for part in _PARTS:
        own = {name: x for name, x in found.items() if name.split("/", 1)[0] == part}
        hashes[part] = fingerprint(own) if own else "none"
    if strange := {name.split("/", 1)[0] for name in found} - set(_PARTS):
        raise SystemExit(f"the state has parts that nothing compares: {', '.join(strange)}")
    return Ending(noted["step"], hashes, noted["data_position"])


def losses(calm: Path, other: Path, *, after: int = 0) -> list[dict[str, Any]]:
    """A row for each step after `after` that either run has recorded: both losses, the names of the
    numbers that differ in a bit or that one of them lacks, and how far the losses are apart,
    relative to the calm one."""
    left, right, rows = records(calm), records(other), []
    for step in sorted(s for s in {*left, *right} if s > after):
        a, b = _numbers(left.get(step, {})), _numbers(right.get(step, {}))
        apart = sorted(n for n in {*a, *b} if a.get(n) != b.get(n))
        row = {"step": step, "undisturbed": a.get("loss"), "killed": b.get("loss")}
        row |= {"differing": apart, "equal": not apart}
        if row["undisturbed"] is not None and row["killed"] is not None:
            gap = abs(row["killed"] - row["undisturbed"])
            row["relative"] = gap / max(abs(row["undisturbed"]), 1e-30)
        rows.append(row)
    return rows


def _numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if not name.startswith(_TIMES)}


def same_data(calm: Path, other: Path, *, after: int = 0) -> bool:
    """Whether every step counted the same number of trained tokens (or pixels), exactly: batches of
    other pages would not."""
    left, right = records(calm), records(other)
    steps = [s for s in left if s > after]
    return bool(steps) and all(
        left[s].get("weight") == right.get(s, {}).get("weight") for s in steps
    )


def compare(calm: Ending, other: Ending) -> list[dict[str, Any]]:
    """A row for each part of the last state."""
    left, right = calm.rows(), other.rows()
    return [
        {"what": name, "undisturbed": left[name], "killed": right[name],
         "equal": left[name] == right[name]}
        for name in left
    ]  # fmt: skip
