"""Whether two implementations of one model compute the same: what every export shows first."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-4
_PIECE = 1 << 22


@dataclasses.dataclass
class Parity:
    """Comparisons of an export, each under a name, against `versus` (a library and its version).

    Numbers agree within `TOLERANCE` absolutely, in float32, unless a comparison is given another;
    ids agree when all are the same. `skipped` says why nothing was compared, `notes` what a reader
    of the result is to know.
    """

    versus: str
    skipped: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)
    found: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def numbers(self, name: str, ours: Any, theirs: Any, *, tolerance: float = TOLERANCE) -> None:
        """Logits [.. V], pixels or the like: the largest and mean difference, and how often both
        have the largest entry of the last axis in the same place."""
        ours, theirs = (np.asarray(x, np.float64) for x in (ours, theirs))
        if ours.shape != theirs.shape:
            raise ValueError(f"{name}: ours is {ours.shape}, theirs is {theirs.shape}")
        apart = np.abs(ours - theirs)
        finite = bool(np.isfinite(apart).all())
        self.found[name] = {
            "max_abs": float(apart.max()) if finite else None,
            "mean_abs": float(apart.mean()) if finite else None,
            "top1_agreement": float((ours.argmax(-1) == theirs.argmax(-1)).mean()),
            "tolerance": tolerance, "scale": float(np.abs(theirs).max()), "count": int(ours.size),
            "ok": finite and bool(apart.max() <= tolerance),
        }  # fmt: skip

    def ids(self, name: str, ours: Any, theirs: Any) -> None:
        """Codes or token ids: the share that is the same, which is to be all."""
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        same = float((ours == theirs).mean()) if ours.shape == theirs.shape else 0.0
        self.found[name] = {"equal": same, "count": int(ours.size), "ok": same == 1.0}

    def arrays(self, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """A round trip ours -> theirs -> ours: every array's bytes are to be the same."""
        odd = sorted(before.keys() ^ after.keys())
        for key in before.keys() & after.keys():
            there, back = np.asarray(before[key][...]), np.asarray(after[key][...])
            if there.dtype != back.dtype or not _same_bytes(there, back):
                odd.append(key)
        self.found[name] = {"arrays": len(before), "different": odd, "ok": not odd}

    @property
    def ok(self) -> bool:
        """Whether there was a comparison and all hold."""
        return bool(self.found) and all(entry["ok"] for entry in self.found.values())

    def __str__(self) -> str:
        rows = [f"against {self.versus}:" + (f" not run ({self.skipped})" if self.skipped else "")]
        for name, entry in self.found.items():
            said = ", ".join(
                f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in entry.items()
                if key != "ok"
            )
            rows.append(f"  {'ok  ' if entry['ok'] else 'FAIL'} {name}: {said}")
        rows += [f"  note: {note}" for note in self.notes]
        return "\n".join(rows)

    def write(self, path: Path) -> None:
        """As JSON."""
        said = {"versus": self.versus, "ok": self.ok, "comparisons": self.found}
        said |= {"skipped": self.skipped} if self.skipped else {}
        said |= {"notes": self.notes} if self.notes else {}
        path.write_text(json.dumps(said, indent=1) + "\n")


def _same_bytes(one: np.ndarray, two: np.ndarray) -> bool:
    """Compared piece by piece, for an array may be a good part of a model."""
    raw = [np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (one, two)]
    if one.shape != two.shape:
        return False
    return all(
        np.array_equal(raw[0][i : i + _PIECE], raw[1][i : i + _PIECE])
        for i in range(0, raw[0].size, _PIECE)
    )
