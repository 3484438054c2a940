"""In words: which processes have which value, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_NUM_SHOWN = 20


def members(processes: Sequence[int]) -> str:
    """Numbers with runs drawn together: `process 2`, `processes 0-3, 5`."""
    runs: list[list[int]] = []
    for i in sorted(processes):
        if runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    parts = []
    for run in runs:
        parts += [f"{run[0]}-{run[-1]}"] if len(run) > 3 else [str(i) for i in run]
    return f"process{'es' if len(processes) != 1 else ''} {', '.join(parts)}"


def named(processes: Sequence[int], names: Sequence[str]) -> str:
    """One or two processes by their full names, more by their numbers."""
    if len(processes) > 2:
        return members(processes)
    return " and ".join(names[i] for i in processes)


def disagreements(values: Sequence[Any], names: Sequence[str]) -> list[str]:
    """One line for each field that differs between the processes' nested values: `data.seed:
    processes 0, 1, 3 have 1, process 2 (host, pid 9) has 2`."""
    tables = [_fields(value) for value in values]
    lines = []
    for field in sorted({key for table in tables for key in table}):
        having: dict[str, list[int]] = {}
        for i, table in enumerate(tables):
            having.setdefault(table.get(field, "nothing"), []).append(i)
        if len(having) > 1:
            parts = [
                f"{named(who, names)} {'has' if len(who) == 1 else 'have'} {text}"
                for text, who in having.items()
            ]
            lines.append(f"{field}: {', '.join(parts)}" if field else ", ".join(parts))
    if len(lines) > _NUM_SHOWN:
        lines[_NUM_SHOWN:] = [f"and {len(lines) - _NUM_SHOWN} more fields"]
    return lines


def _fields(value: Any, path: str = "") -> dict[str, str]:
    """A nested value as `a.b[0]` to the text of what is there."""
    if isinstance(value, Mapping) and value:
        parts = [(f"{path}.{k}" if path else str(k), v) for k, v in value.items()]
    elif isinstance(value, list) and value:
        parts = [(f"{path}[{i}]", v) for i, v in enumerate(value)]
    else:
        return {path: json.dumps(value)}
    return {k: v for p, part in parts for k, v in _fields(part, p).items()}
