"""Safetensors files read and written one tensor at a time, so that a model never is in memory."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

SHARD_BYTES = 5 * 10**9
_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U64": np.uint64,
    "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}


class FormatError(ValueError):
    """A file is not what its format says."""


class Stored(Protocol):
    """A tensor that need not be in memory: `x[...]` reads it, `x[2:4]` only these rows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class _Kept:
    """A tensor of a safetensors file, read by `pread`: mapped pages would stay resident."""

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.path, self.name, self.shape, self.dtype = path, name, shape, dtype

    def __getitem__(self, index: Any, /) -> np.ndarray:
        with safe_open(self.path, "np", backend="pread") as file:
            if not self.shape or index is ...:
                return file.get_tensor(self.name)
            return file.get_slice(self.name)[index]


def _of_file(path: Path) -> dict[str, _Kept]:
    try:
        with safe_open(path, "np", backend="pread") as file:
            found = {}
            for name in file.keys():  # noqa: SIM118  # it is no mapping
                part = file.get_slice(name)
                if (code := part.get_dtype()) not in _DTYPES:
                    raise FormatError(f"{path}: {name} has the dtype {code}, which is not known")
                dtype = np.dtype(_DTYPES[code])
                found[name] = _Kept(path, name, tuple(part.get_shape()), dtype)
            return found
    except (SafetensorError, OSError) as problem:
        raise FormatError(
            f"{path} is no whole safetensors file ({problem}): copy or export it again"
        ) from problem


def open_tensors(place: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, or of all such files in a folder: those that its index
    names if it has one. Only headers are read.

    Raises `FileNotFoundError` when there is none, `FormatError` for a damaged file, a name that two
    files have, and an index that does not fit its files or leaves its folder.
    """
    place = Path(place)
    if place.is_file():
        return dict(_of_file(place))
    indices = sorted(place.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        listed = ", ".join(path.name for path in indices)
        raise FormatError(f"{place} has several indices ({listed}): name the one file or folder")
    weight_map = _weight_map(indices[0]) if indices else {}
    names = sorted(set(weight_map.values())) or [p.name for p in place.glob("*.safetensors")]
    if not names:
        raise FileNotFoundError(f"{place} has no safetensors files")
    found: dict[str, Stored] = {}
    for name in sorted(names):
        if not (place / name).is_file():
            raise FormatError(f"{indices[0]} names {name}, which is not there: copy it too")
        for key, tensor in _of_file(place / name).items():
            if key in found:
                raise FormatError(f"{key} is in {name} and in another file of {place}")
            found[key] = tensor
    if weight_map and (odd := sorted(weight_map.keys() ^ found.keys())):
        raise FormatError(f"{indices[0]} and its files differ in {', '.join(odd[:8])}")
    return found


def _weight_map(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())["weight_map"]
        names = set(found.values())
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise FormatError(f"{path} is no index of safetensors ({problem!r})") from problem
    for name in names:
        require_inside(path.parent, name, where=path)
    return found


def require_inside(folder: Path, name: Any, *, where: Path) -> None:
    """Raise `FormatError` for a name that is no plain path within the folder, also where a link
    leads out of it."""
    parts = Path(name).parts if isinstance(name, str) else ()
    plain = parts and not Path(name).is_absolute() and ".." not in parts and "\0" not in name
    if not plain or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise FormatError(f"{where} names {name!r}, which is no file of its folder: do not use it")


def code_of(dtype: Any) -> str:
    """A dtype as safetensors writes it; raises `FormatError` for one that it cannot."""
    if np.dtype(dtype) not in _CODES:
        raise FormatError(f"safetensors has no dtype {np.dtype(dtype)}")
    return _CODES[np.dtype(dtype)]


def _shards(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names in order, in runs of at most so many bytes (or of one name)."""
    shards: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        if shards[-1] and held + size > most:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += size
    return shards


class Writer:
    """A folder's safetensors, written in any order: every tensor has its place from the start.

    `shapes` is name to (dtype, shape). Files are STEM.safetensors, or past `shard_bytes`
    STEM-00001-of-0000N.safetensors with STEM.safetensors.index.json, as the Hugging Face libraries
    have it. As a context it checks at the end that every byte was put.
    """

    def __init__(
        self,
        folder: Path,
        shapes: Mapping[str, tuple[Any, tuple[int, ...]]],
        *,
        stem: str = "model",
        shard_bytes: int = SHARD_BYTES,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._layout = {n: (np.dtype(d), tuple(s)) for n, (d, s) in shapes.items()}
        sizes = {n: d.itemsize * math.prod(s) for n, (d, s) in self._layout.items()}
        shards = _shards(sizes, shard_bytes)
        count = len(shards)
        self._files: list[Any] = []
        self._places: dict[str, tuple[Any, int]] = {}
        self._left = dict(sizes)
        self.names: list[str] = []
        for i, names in enumerate(shards, start=1):
            file = (
                f"{stem}.safetensors"
                if count == 1
                else f"{stem}-{i:05d}-of-{count:05d}.safetensors"
            )
            self.names.append(file)
            self._begin(folder / file, names, sizes, metadata or {})
        if count > 1:
            where = {n: f for f, names in zip(self.names, shards, strict=True) for n in names}
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
            name = f"{stem}.safetensors.index.json"
            (folder / name).write_text(json.dumps(index, indent=1) + "\n")
            self.names.append(name)

    def _begin(
        self, path: Path, names: list[str], sizes: Mapping[str, int], metadata: Mapping[str, str]
    ) -> None:
        header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
        offset = 0
        for name in names:
            dtype, shape = self._layout[name]
            end = offset + sizes[name]
            header[name] = {
                "dtype": code_of(dtype), "shape": list(shape), "data_offsets": [offset, end],
            }  # fmt: skip
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        file = path.open("wb")
        self._files.append(file)
        file.write(len(text).to_bytes(8, "little") + text)
        start = 8 + len(text)
        file.truncate(start + offset)
        for name in names:
            self._places[name] = (file, start + header[name]["data_offsets"][0])

    def put(self, name: str, array: Any, *, row: int = 0) -> None:
        """Write a tensor, or a run of its rows (entries of its first axis) from `row` on, cast to
        its dtype."""
        dtype, shape = self._layout[name]
        data = np.asarray(array)
        cast = np.ascontiguousarray(data.astype(dtype, copy=False))
        whole = data.shape == shape and not row
        rows = row + (data.shape[0] if data.ndim else 1)
        if not whole and (data.shape[1:] != shape[1:] or not shape or rows > shape[0]):
            raise ValueError(f"{name} is {list(shape)}, and {list(data.shape)} is no part of it")
        file, start = self._places[name]
        file.seek(start + row * dtype.itemsize * math.prod(shape[1:]))
        file.write(cast.reshape(-1).view(np.uint8).data if cast.size else b"")
        self._left[name] -= cast.nbytes

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        for file in self._files:
            file.close()
        odd = [name for name, left in self._left.items() if left]
        if kind is None and odd:
            raise ValueError(f"not (or twice) written: {', '.join(odd)}")


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that gets its name at the end, so that `out` is whole or not there; raises
    `FileExistsError` when something is."""
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} is there already: give another folder, or remove it")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(out)
