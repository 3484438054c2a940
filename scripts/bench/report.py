"""What was found, said as it is found: tables to read or to paste, and a JSON file that is whole
after each."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.bench.machine import Machine


def shown(value: Any) -> str:
    """A cell: numbers to three figures, a dash for what is not known."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}"


@dataclasses.dataclass
class Report:
    """`found` is what `path` has. With a `limit_s` what would begin after so many seconds is left
    out, and said to be."""

    machine: Machine
    path: Path | None = None
    markdown: bool = False
    limit_s: float = 0.0
    found: dict[str, Any] = dataclasses.field(default_factory=dict)
    began: float = dataclasses.field(default_factory=time.monotonic)

    def put(self, section: str, values: Any) -> None:
        """What a section has found so far."""
        self.found[section] = values
        if self.path:
            self.path.write_text(json.dumps(self.found, indent=1) + "\n")

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print rows under a title that says the machine's load."""
        cells = [list(head), *([shown(value) for value in row] for row in rows)]
        load = f"load {os.getloadavg()[0]:.1f}"
        if self.markdown:
            lines = [f"| {' | '.join(row)} |" for row in cells]
            print(f"\n{title} ({load})\n", lines[0], "|---" * len(head) + "|", sep="\n")
            print(*lines[1:], sep="\n", flush=True)
            return
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        print(f"\n{title} ({load})")
        for row in cells:
            line = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  " + "  ".join(line).rstrip(), flush=True)

    def note(self, line: str) -> None:
        """Print a line."""
        print(line, flush=True)

    def is_late(self, what: str) -> bool:
        """Whether the time is up; then it says that `what` is left out."""
        spent = time.monotonic() - self.began
        late = bool(self.limit_s) and spent > self.limit_s
        if late:
            self.found.setdefault("left_out", []).append(what)
            self.note(f"{what}: left out, for {spent:.0f} s of --limit-s {self.limit_s:.0f} are up")
        return late
