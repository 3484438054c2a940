"""What was read, kept in a folder: one small file a picture, whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evals.readers.crops import Quad
from evals.readers.lines import Picture, Reader, ReadLine


@dataclasses.dataclass(frozen=True)
class Found:
    """What a reader found on a picture: its lines, or the strings of its quads."""

    lines: tuple[ReadLine, ...] = ()
    crops: tuple[str, ...] = ()


class ReadCache:
    """A folder of a reader's results.

    Files lie in a folder of their own for each identity, whose `identity.json` says whose they
    are. Any number of processes may write at once: a file appears complete, and two that write the
    same one write the same. A file that cannot be understood counts as not there.
    """

    def __init__(self, folder: Path, reader: Reader) -> None:
        identity = json.dumps(dict(reader.identity), sort_keys=True, indent=1)
        self.folder = folder / hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / "identity.json", identity)

    def key(self, picture: Picture, quads: Sequence[Quad] | None) -> str:
        """What a result is kept under: the pixels, their shape and the quads."""
        digest = hashlib.sha256(f"{picture.shape} {_plain(quads)}".encode())
        digest.update(picture.tobytes())
        return digest.hexdigest()

    def get(self, key: str) -> Found | None:
        """What was found, if it is here."""
        try:
            value = json.loads(self._path(key).read_text())
            lines = tuple(ReadLine(s, (a, b, c, d), p) for s, (a, b, c, d), p in value["lines"])
            return Found(lines, tuple(map(str, value["crops"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, found: Found) -> None:
        """Keep it."""
        lines = [(line.string, line.box_px, line.confidence) for line in found.lines]
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        _write(path, json.dumps({"lines": lines, "crops": found.crops}))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.json"


def _plain(quads: Sequence[Quad] | None) -> Any:
    return quads if quads is None else [[tuple(map(float, corner)) for corner in q] for q in quads]


def _write(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(name, path)
