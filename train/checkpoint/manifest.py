"""What a step of a run says of itself in `manifest.json`, and whether its files are still those.

The manifest is written last, so a step that has one is complete. It carries a CRC-32 and the size
of every file of the step, and a CRC-32 of itself.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SCHEMA = 1
NAME = "manifest.json"
PINS = "pins"
DOOMED = "doomed"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_CHUNK_BYTES = 1 << 22


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, could not be written, or belongs to another run."""


class DamageError(CheckpointError):
    """Files of a step are not those that were written; an earlier step may still be whole."""


@dataclasses.dataclass(frozen=True)
class About:
    """What is said of a run beside its task, in plain JSON: what is in its data (which a restart
    may not change), and for the manifest its whole config and the contract of the tokens that it
    writes or was trained on; `init` is the run or the model's folder whose weights it begins
    with."""

    data: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    token_contract: Mapping[str, Any] | None = None
    init: str = ""


def differences(saved: Any, wanted: Any, path: str = "") -> list[str]:
    """Where two nested identities differ, one line each."""
    if isinstance(saved, Mapping) and isinstance(wanted, Mapping):
        lines = []
        for key in sorted({*saved, *wanted}):
            lines += differences(saved.get(key), wanted.get(key), f"{path}.{key}" if path else key)
        return lines
    return [] if saved == wanted else [f"{path}: {saved!r} there, {wanted!r} here"]


def plain(value: Any) -> Any:
    """What comes back from JSON: tuples are lists, keys are strings."""
    return json.loads(json.dumps(value))


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def hash_of(value: Any) -> str:
    """SHA-256 of plain JSON, whatever the order of its keys."""
    return hashlib.sha256(_canonical(value)).hexdigest()


@functools.cache
def versions() -> dict[str, str]:
    """Of Python and of the packages that decide how a state is computed and written."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages}


@functools.cache
def git_revision() -> str | None:
    """The commit of this code, with `-dirty` when files differ from it; None outside git."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return found.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def listing(target: Path) -> dict[str, int]:
    """Path in the step to size in bytes of every file that a manifest answers for."""
    found = {}
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        ours = name.startswith(NAME) or name == DOOMED or name.startswith(f"{PINS}/")
        if path.is_file() and not ours:
            found[name] = path.stat().st_size
    return found


def share(sizes: Mapping[str, int], index: int, count: int) -> list[str]:
    """The files that process `index` of `count` reads: dealt out from the largest down."""
    return sorted(sizes, key=lambda name: (-sizes[name], name))[index::count]


def crc32(path: Path) -> str:
    """CRC-32 of a file's bytes as eight hexadecimal digits; other threads run meanwhile.

    It finds every burst of up to 32 flipped bits and misses other damage once in 4 billion files.
    SHA-256 would also withstand forgery, for twice the time.
    """
    value, buffer = 0, bytearray(_CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            value = zlib.crc32(memoryview(buffer)[:count], value)
    return f"{value:08x}"


def write(target: Path, content: Mapping[str, Any]) -> None:
    """Rename a manifest of this schema into place, on the disk before it is seen."""
    body = {"schema": SCHEMA, **plain(content)}
    body["crc32"] = f"{zlib.crc32(_canonical(body)):08x}"
    draft = target / f"{NAME}.part"
    with draft.open("w") as file:
        file.write(json.dumps(body, indent=1))
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, target / NAME)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(target: Path) -> dict[str, Any]:
    """The manifest of a step.

    Raises `DamageError` when it is missing or not as it was written, `CheckpointError` when it has
    another schema.
    """
    path = target / NAME
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DamageError(f"{path} is missing") from None
    except (OSError, ValueError) as problem:
        raise DamageError(f"{path} cannot be read ({problem})") from problem
    schema = body.get("schema") if isinstance(body, dict) else None
    if schema != SCHEMA:
        found = "has no schema" if schema is None else f"has schema {schema}"
        raise CheckpointError(
            f"{path} {found} and this code reads schema {SCHEMA}: read it with the code that wrote "
            "it, or train again in another --workdir"
        )
    noted = body.pop("crc32", None)
    if noted != f"{zlib.crc32(_canonical(body)):08x}":
        raise DamageError(f"{path} is not as it was written (its checksum differs)")
    return body


def damage(
    target: Path, files: Mapping[str, Any], names: Iterable[str], *, checksums: bool = True
) -> list[str]:
    """What is wrong with these files of a step, one line a file; reads all their bytes, or with
    `checksums` false only their sizes."""
    problems = []
    for name in names:
        path, noted = target / name, files[name]
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif (size := path.stat().st_size) != noted["bytes"]:
            problems.append(f"{name} has {size} bytes instead of {noted['bytes']}")
        elif checksums and crc32(path) != noted["crc32"]:
            problems.append(f"{name} is not as it was written (its checksum differs)")
    return problems


def complete(folder: Path) -> list[int]:
    """The steps in a run's folder that have a manifest, oldest first."""
    return sorted(int(p.name) for p in step_folders(folder) if (p / NAME).exists())


def step_folders(folder: Path) -> list[Path]:
    """The folders with a number for a name, whether complete or not."""
    return [p for p in folder.glob("*") if p.name.isdigit() and p.is_dir()]
