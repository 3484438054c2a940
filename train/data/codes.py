"""A code cache: what a decoder learns from, on disk, under the token contract of what made it.

A folder holds shards `codes-00003-of-00016.array_record`, beside each a `.json` that says what it
is of and its checksum, and `cache.json`, the header, written when all of them are whole
(`encoding.py` makes them).

Opening a cache for training reads the header and the sizes of the files, and no record. `verify`
reads every byte. A byte that changed since is also found without it, when its record is read:
ArrayRecord keeps a hash of every block.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from flax import serialization

from blueprint.formats import from_json, to_dict
from train.checkpoint import differences

Record = dict[str, Any]
VERSION = 2  # the first was a pair of .npy files and had no number
NAMES = ("codes", "glyph_codes")  # of the page, and of its lines in the canonical font


class ContractError(RuntimeError):
    """Codes of one tokenizer met a model of another, or a cache other data than it was begun
    with."""


class CacheError(RuntimeError):
    """A code cache that cannot be read; the message names its damaged files."""


def require_same(found: Mapping[str, Any], wanted: Mapping[str, Any], *, where: str) -> None:
    """Raise `ContractError` saying what differs, unless two token contracts are the same."""
    if lines := differences(json.loads(json.dumps(found)), json.loads(json.dumps(wanted))):
        raise ContractError(
            f"{where} holds codes of another tokenizer ({'; '.join(lines)}): encode again with "
            "scripts/encode.py, or load the tokenizer they came from"
        )


def page_px(contract: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the pages that a contract is for."""
    height, width = (contract["downsampling"] * n for n in contract["grid"])
    return height, width


def pack(record: Mapping[str, Any], contract: Mapping[str, Any]) -> bytes:
    """A record `{prompt, blueprint, codes, glyph_codes}` in MessagePack, the same bytes for the
    same record.

    Codes [y x Q] take the smallest whole numbers that hold the contract's codebook (uint8 to 256).
    """
    dtype = np.min_scalar_type(contract["codebook_size"] - 1)
    plan = json.dumps(to_dict(record["blueprint"]), ensure_ascii=False, separators=(",", ":"))
    codes = {name: np.asarray(record[name]).astype(dtype) for name in NAMES}
    return serialization.msgpack_serialize(
        {"prompt": record["prompt"], "blueprint": plan, **codes}, in_place=True
    )


def unpack(packed: bytes) -> Record:
    """The inverse of `pack`; raises `BlueprintError` for a blueprint of an unknown version."""
    record: Any = serialization.msgpack_restore(packed)
    return {**record, "blueprint": from_json(record["blueprint"])}


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of a cache as it was when it was written."""

    name: str
    num_records: int
    num_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str, num_records: int) -> Shard:
        """What is to be noted of a file that will be called `name`."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(name, num_records, path.stat().st_size, sha256)

    def problem(self, folder: Path, *, every_byte: bool) -> str:
        """What is wrong with the file now, or ""; without `every_byte` its size alone is looked
        at."""
        path = folder / self.name
        if not path.is_file():
            return "is missing"
        if (size := path.stat().st_size) != self.num_bytes:
            return f"has {size} bytes instead of {self.num_bytes}"
        if every_byte and Shard.of(path, self.name, self.num_records) != self:
            return "has other bytes than were written"
        return ""


def read_header(folder: Path) -> dict[str, Any]:
    """Contract, origin and shards of a cache.

    Raises `FileNotFoundError` for a missing or unfinished one, `CacheError` for another format.
    """
    path = Path(folder) / "cache.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no finished code cache; make one with scripts/encode.py"
        )
    header = json.loads(path.read_text())
    if (version := header.get("version")) != VERSION:
        raise CacheError(
            f"{folder} holds a code cache of format {version}, and this Letterpress reads "
            f"{VERSION}: remove it and encode again with scripts/encode.py"
        )
    return header


class Cache:
    """Records `{prompt, blueprint, codes, glyph_codes}` at random; can be pickled, and opens a
    shard when its first record is wanted."""

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        self.folder, self.header = Path(folder), header
        self.shards = [Shard(**shard) for shard in header["shards"]]
        self._ends = list(itertools.accumulate(shard.num_records for shard in self.shards))
        paths = [f"{self.folder / s.name}[0:{s.num_records}]" for s in self.shards]
        self._packed = ArrayRecordDataSource(paths, reader_options={"max_parallelism": "0"})

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        if not 0 <= (index := int(index)) < len(self):
            raise IndexError(f"{self.folder} has {len(self)} records, and none at {index}")
        try:
            packed = self._packed[index]
        except (RuntimeError, ValueError, IndexError) as problem:
            raise CacheError(
                f"{self.folder / self.shard_of(index).name} is damaged at record {index} of the "
                f"cache ({problem}): run scripts/encode.py again, which makes that file anew"
            ) from problem
        return unpack(packed)

    def shard_of(self, index: int) -> Shard:
        """The shard that a record lies in."""
        return self.shards[bisect.bisect_right(self._ends, index)]

    def check(self, *, every_byte: bool = False) -> None:
        """Raise `CacheError` naming every shard that is missing, of another size, or, if
        `every_byte`, of another checksum."""
        problems = {s.name: s.problem(self.folder, every_byte=every_byte) for s in self.shards}
        if damaged := [f"{name} {problem}" for name, problem in problems.items() if problem]:
            raise CacheError(
                f"{self.folder} is damaged ({'; '.join(damaged)}): run scripts/encode.py again, "
                "which makes those files anew"
            )


def open_cache(folder: Path) -> Cache:
    """A finished cache, its files' sizes checked; raises as `read_header` and `Cache.check` do."""
    cache = Cache(folder, read_header(folder))
    cache.check()
    return cache


def verify(folder: Path) -> dict[str, Any]:
    """The header of a cache every byte of which is as it was written; raises as `open_cache`
    does."""
    cache = Cache(folder, read_header(folder))
    cache.check(every_byte=True)
    return dict(cache.header)


def open_caches(folders: Sequence[str | Path]) -> list[Cache]:
    """Caches of one token contract; raises as `open_cache` and `require_same` do."""
    caches = [open_cache(Path(folder)) for folder in folders]
    for cache in caches[1:]:
        wanted = caches[0].header["contract"]
        require_same(cache.header["contract"], wanted, where=str(cache.folder))
    return caches


def origins(caches: Sequence[Cache]) -> dict[str, Any]:
    """What was encoded, in plain JSON: part of what must not change between restarts of a
    training."""
    names = ("data", "num_records", "sample_sha256")
    held = [{name: cache.header[name] for name in names} for cache in caches]
    return {"caches": {str(i): origin for i, origin in enumerate(held)}}
