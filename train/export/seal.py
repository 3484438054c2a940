"""A folder that answers for its files: `bundle.json` has the size and SHA-256 of each, and of
itself.

A CRC-32 (`train/checkpoint/manifest.py`) finds what disks and networks do to a run's own files. A
sealed folder goes to others, so its sums withstand intent as well: who knows the SHA-256 of its
`bundle.json` knows every byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from train.checkpoint.manifest import hash_of, plain
from train.export.tensors import FormatError, require_inside

NAME = "bundle.json"
SCHEMA = 1
_NAMED_FILES = 8
_AGAIN = "copy or export the bundle again"


class SealError(FormatError):
    """A sealed folder that is not as it was sealed, or that this code cannot read."""


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_sealed(folder: Path) -> bool:
    """Whether a folder says what each of its files is to be."""
    return (Path(folder) / NAME).is_file()


def seal(
    folder: Path, content: Mapping[str, Any], *, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write `bundle.json` over all files that are there now, and return what it says; `known` are
    entries of files that were summed up before and have not changed."""
    files = {}
    for name in sorted(_present(folder) - {NAME}):
        path = folder / name
        entry = {"bytes": path.stat().st_size}
        files[name] = (known or {}).get(name) or {**entry, "sha256": sha256(path)}
    body = plain({"schema": SCHEMA, **content, "files": files})
    body["sha256"] = hash_of(body)
    (folder / NAME).write_text(json.dumps(body, indent=1) + "\n")
    return body


def read(folder: Path) -> dict[str, Any]:
    """What `bundle.json` says; no other file is looked at.

    Raises `SealError` when it is not as it was written, has another schema, or names what is no
    file within the folder.
    """
    path = Path(folder) / NAME
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as problem:
        raise SealError(f"{path} cannot be read as JSON ({problem}): {_AGAIN}") from problem
    schema = body.get("schema") if isinstance(body, dict) else None
    if schema != SCHEMA:
        found = "has no schema" if schema is None else f"has schema {schema!r}"
        raise SealError(
            f"{path} {found} and this code reads schema {SCHEMA}: read it with the version that "
            "wrote it, or a newer one"
        )
    noted = body.pop("sha256", None)
    if noted != hash_of(body):
        raise SealError(f"{path} is not as it was written (its SHA-256 differs): {_AGAIN}")
    files = body.get("files")
    if not isinstance(files, dict) or not all(map(_is_entry, files.values())):
        raise SealError(f"{path} does not say the size and SHA-256 of its files: do not use it")
    for name in files:
        require_inside(Path(folder), name, where=path)
    return body


def require_whole(folder: Path, *, under: str = "") -> dict[str, Any]:
    """What `bundle.json` says, every byte of the listed files read and compared, or only of those
    in the folder `under` of it.

    Raises `SealError` naming each file that is changed, missing, a link, or not listed within a
    folder that has listed ones; other files on top are told and never read.
    """
    folder = Path(folder)
    body = read(folder)
    names = [n for n in body["files"] if not under or n.startswith(f"{under}/")]
    problems = [line for name in names for line in _wrong(folder, name, body["files"][name])]
    closed = {name.split("/", 1)[0] for name in names if "/" in name}
    for name in sorted(_present(folder) - body["files"].keys() - {NAME}):
        if name.split("/", 1)[0] in closed:
            problems.append(f"{name} is not listed in {NAME}: remove it")
        elif not under:
            logging.warning("%s is not listed in %s and is not read", folder / name, NAME)
    if problems:
        more = len(problems) - _NAMED_FILES
        said = "; ".join(problems[:_NAMED_FILES]) + (f"; and {more} more" if more > 0 else "")
        raise SealError(f"{folder} is not as it was sealed ({said}): {_AGAIN}")
    return body


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("bytes"), int)
        and isinstance(entry.get("sha256"), str)
    )


def _wrong(folder: Path, name: str, noted: Mapping[str, Any]) -> Iterator[str]:
    path = folder / name
    if path.resolve() != folder.resolve() / name:
        yield f"{name} is a link: copy the file itself"
    elif not path.is_file():
        yield f"{name} is missing"
    elif (size := path.stat().st_size) != noted["bytes"]:
        yield f"{name} has {size} bytes instead of {noted['bytes']}"
    elif sha256(path) != noted["sha256"]:
        yield f"{name} is not as it was written (its SHA-256 differs)"


def _present(folder: Path) -> set[str]:
    """Everything that is no folder; a link is a thing of its own, wherever it leads."""
    found = (p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    return {path.relative_to(folder).as_posix() for path in found}
