"""Encode a source of pages into a code cache: in shards, by any number of processes, each going on
where a killed one stopped.

Records [k N / K, (k + 1) N / K) are shard k of K, which process k modulo the number of processes
makes. A shard is written under another name, and gets its own when it is whole; its `.json`, with
the checksum, follows. So what a restart finds is kept if its checksum is right and made anew if
not, and the last to finish writes the header. All files have the same bytes however often the work
was cut short and however many shared it, because a chunk of pages is cut within its shard and
always of one size, and the writer's bytes depend on its records alone.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Int, UInt8
from tqdm import tqdm

from blueprint.formats import to_json
from blueprint.schema import Blueprint
from evals.metrics.pixels import psnr_db
from train.checkpoint import differences
from train.data.codes import (
    NAMES,
    VERSION,
    Cache,
    CacheError,
    ContractError,
    Record,
    Shard,
    pack,
    page_px,
)

_CHUNK = 16  # pages that are encoded at a time
_SAMPLED = 8  # records that are read back, and that stand for the data in its identity
_LEAST_EQUAL = 0.999  # share of codes that come again; an accelerator may round otherwise once
# Keys of a data section that decide nothing of a record (`num_records` says how many there are).
_NOT_OF_RECORDS = (
    "num_pages", "batch_size", "num_evaluation_pages", "codes", "code_weights", "tokenizer",
    "prompt_tokenizer", "buckets",
)  # fmt: skip
# One record a chunk, for Grain reads at random; at level 3, the writer's own, the demo's records
# took longer and no less room (3.8 kB each, here 3.5, uncompressed 26).
_OPTIONS = "group_size:1,zstd:1"


@dataclasses.dataclass(frozen=True)
class Coder:
    """A trained tokenizer as functions, and its token contract; pixels are uint8. `canonical` draws
    the page of which `glyph_codes` are the codes."""

    encode: Callable[[UInt8[np.ndarray, "B Y X C"]], Int[Any, "B y x Q"]]
    decode: Callable[[Int[np.ndarray, "B y x Q"]], UInt8[Any, "B Y X C"]]
    canonical: Callable[[Blueprint], UInt8[np.ndarray, "Y X C"]]
    contract: Mapping[str, Any]


Pictures = dict[str, list[UInt8[np.ndarray, "Y X C"]]]  # by the name of their codes
Drawn = tuple[list[Record], Pictures]


def _drawn(source: Any, canonical: Callable[..., Any], indices: Sequence[int]) -> Drawn:
    records = [source[index] for index in indices]
    pages = [record["pixels"] for record in records]
    glyphs = [canonical(record["blueprint"]) for record in records]
    return records, dict(zip(NAMES, (pages, glyphs), strict=True))


@dataclasses.dataclass(frozen=True)
class Encoding:
    """A cache to be made: the first `num_records` records `{prompt, blueprint, pixels}` of
    `source`, in `num_shards` files of `folder`. `data` is the section of a config that the source
    was opened by.

    Raises `ValueError` when there are fewer records than that or than shards, or the pages are not
    of the size that the contract is for.
    """

    source: Any
    folder: Path
    coder: Coder
    data: Mapping[str, Any]
    num_records: int
    num_shards: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_shards <= self.num_records <= len(self.source):
            raise ValueError(
                f"the data has {len(self.source)} records, which do not make {self.num_records} in "
                f"{self.num_shards} shards: ask for fewer (and for 1 shard or more)"
            )
        size_px = np.shape(self.source[0]["pixels"])[:2]
        if size_px != (wanted := page_px(self.coder.contract)):
            raise ValueError(
                f"the data has pages of {size_px[0]} x {size_px[1]} px (height, width), and the "
                f"tokenizer takes {wanted[0]} x {wanted[1]}: set data.page to that"
            )

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What must not change between restarts: contract, data, counts, and a hash of sampled
        records, for a name may stay while what it names does not."""
        digest = hashlib.sha256()
        for record in (self.source[index] for index in self.sampled):
            digest.update(json.dumps([record["prompt"], to_json(record["blueprint"])]).encode())
            digest.update(np.ascontiguousarray(record["pixels"]).tobytes())
        whole = {
            "version": VERSION, "contract": self.coder.contract,
            "data": {k: v for k, v in self.data.items() if k not in _NOT_OF_RECORDS},
            "num_records": self.num_records, "num_shards": self.num_shards,
            "sample_sha256": digest.hexdigest(),
        }  # fmt: skip
        return json.loads(json.dumps(whole))

    @property
    def sampled(self) -> list[int]:
        """A few records, spread over the data."""
        count = min(_SAMPLED, self.num_records)
        return [(2 * i + 1) * self.num_records // (2 * count) for i in range(count)]

    def records(self, shard: int) -> range:
        """The records of a shard."""
        start, stop = (k * self.num_records // self.num_shards for k in (shard, shard + 1))
        return range(start, stop)

    def name(self, shard: int) -> str:
        """The name of a shard's file."""
        return f"codes-{shard:05d}-of-{self.num_shards:05d}.array_record"

    def sidecar(self, shard: int) -> Path:
        """Where the checksum of a shard lies."""
        return (self.folder / self.name(shard)).with_suffix(".json")

    def drawn(self, indices: Sequence[int]) -> Drawn:
        """Records, and what is encoded of them."""
        return _drawn(self.source, self.coder.canonical, indices)

    def chunks(self, shard: int) -> list[range]:
        """The records of a shard, as many at a time as are encoded."""
        records = self.records(shard)
        return [records[i : i + self.chunk] for i in range(0, len(records), self.chunk)]

    @property
    def chunk(self) -> int:
        """How many pages are encoded at a time."""
        return min(_CHUNK, -(-self.num_records // self.num_shards))

    def codes(self, pictures: Sequence[UInt8[np.ndarray, "Y X C"]]) -> Int[Any, "B y x Q"]:
        """Codes of at most a chunk of pages, which is filled up: one size alone is compiled, and a
        page has the same codes in a short chunk as in a long one."""
        spare = self.chunk - len(pictures)
        return self.coder.encode(np.stack([*pictures, *[pictures[-1]] * spare]))[: len(pictures)]


def encode(
    job: Encoding, *, process_index: int = 0, num_processes: int = 1, num_workers: int = 0
) -> dict[str, Any] | None:
    """Make the shards of one process, then the header if all shards are whole: returns it, or None
    while other processes have some to make. Pages are drawn by `num_workers` processes, or by this
    one.

    Raises `ContractError` when the folder was begun with another tokenizer or other data: then
    nothing in it is touched.
    """
    if not 0 <= process_index < num_processes:
        raise ValueError(f"process {process_index} is not one of 0 to {num_processes - 1}")
    _require_own(job)
    job.folder.mkdir(parents=True, exist_ok=True)
    missing = [k for k in range(process_index, job.num_shards, num_processes) if not _whole(job, k)]
    total = sum(len(job.records(shard)) for shard in missing)
    chunks = itertools.chain.from_iterable(map(job.chunks, missing))
    with (
        tqdm(total=total, desc="encode", unit="page", mininterval=5, disable=not total) as bar,
        contextlib.closing(_drawn_ahead(job, chunks, num_workers if total else 0)) as drawn,
    ):
        coded = _coded(job, drawn)
        for shard in missing:
            own = itertools.islice(coded, len(job.records(shard)))
            _write_shard(job, shard, own, bar.update)
    return _finish(job, process_index)


def _require_own(job: Encoding) -> None:
    for path in sorted([*job.folder.glob("codes-*.json"), *job.folder.glob("cache.json")]):
        found = json.loads(path.read_text())
        found = found.get("identity", {k: v for k, v in found.items() if k in job.identity})
        if lines := differences(found, job.identity):
            raise ContractError(
                f"{job.folder} was begun with another tokenizer or other data "
                f"({'; '.join(lines)}): give another --out, or remove that folder"
            )


def _whole(job: Encoding, shard: int) -> Shard | None:
    """A shard that is there and whole."""
    if not job.sidecar(shard).is_file():
        return None
    noted = Shard(**json.loads(job.sidecar(shard).read_text())["shard"])
    if problem := noted.problem(job.folder, every_byte=True):
        logging.warning("%s %s: it is to be made anew", job.folder / noted.name, problem)
        return None
    return noted


def _replace(path: Path, value: Any, process_index: int) -> None:
    draft = path.with_name(f"{path.name}.{process_index}.part")
    draft.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(draft, path)


def _write_shard(
    job: Encoding, shard: int, records: Iterator[Record], count: Callable[[int], Any]
) -> None:
    job.sidecar(shard).unlink(missing_ok=True)
    path = job.folder / job.name(shard)
    draft = path.with_name(path.name + ".part")
    writer = ArrayRecordWriter(str(draft), _OPTIONS)
    for record in records:
        writer.write(pack(record, job.coder.contract))
        count(1)
    writer.close()
    noted = Shard.of(draft, path.name, len(job.records(shard)))
    os.replace(draft, path)
    value = {"identity": job.identity, "shard": dataclasses.asdict(noted)}
    _replace(job.sidecar(shard), value, shard)


_held: dict[str, Any] = {}  # in a worker process: what it draws from


def _hold(source: Any, canonical: Callable[..., Any]) -> None:
    _held.update(source=source, canonical=canonical)


def _draw_held(indices: Sequence[int]) -> Drawn:
    return _drawn(_held["source"], _held["canonical"], indices)


def _drawn_ahead(
    job: Encoding, chunks: Iterator[range], num_workers: int
) -> Generator[Drawn, None, None]:
    """The chunks in order, a few drawn ahead by worker processes if there are any."""
    if not num_workers:
        yield from map(job.drawn, chunks)
        return
    context = multiprocessing.get_context("spawn")  # JAX has threads, which a fork would lose
    held = job.source, job.coder.canonical
    pool = ProcessPoolExecutor(num_workers, context, initializer=_hold, initargs=held)
    waiting: collections.deque[Future[Drawn]] = collections.deque()
    try:
        for indices in chunks:
            waiting.append(pool.submit(_draw_held, indices))
            if len(waiting) > 2 * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _coded(job: Encoding, drawn: Iterator[Drawn]) -> Iterator[Record]:
    """Records with their codes; raises `ValueError` for codes of another shape than the
    contract's."""
    shape = (*job.coder.contract["grid"], job.coder.contract["num_codes"])

    def settled(records: list[Record], chunk: Mapping[str, Any]) -> Iterator[Record]:
        codes = {name: np.asarray(value) for name, value in chunk.items()}
        for at, record in enumerate(records):
            own = {name: value[at] for name, value in codes.items()}
            if any(value.shape != shape for value in own.values()):
                raise ValueError(
                    f"{job.folder}: the tokenizer gave codes {own['codes'].shape} of a page, and "
                    f"its contract has {shape}; encode pages of the size it was trained on"
                )
            yield {**record, **own}

    # A chunk is waited for when the next one was begun: the device works while pages are drawn and
    # records are written.
    pending: tuple[list[Record], dict[str, Any]] | None = None
    for records, pictures in drawn:
        begun = records, {name: job.codes(pages) for name, pages in pictures.items()}
        if pending:
            yield from settled(*pending)
        pending = begun
    if pending:
        yield from settled(*pending)


def _finish(job: Encoding, process_index: int) -> dict[str, Any] | None:
    """The header, written if it is due."""
    every = range(job.num_shards)
    if not all(job.sidecar(shard).is_file() for shard in every):
        return None
    shards = [shard for shard in (_whole(job, k) for k in every) if shard]
    if len(shards) < job.num_shards:
        return None
    header = {**job.identity, "shards": [dataclasses.asdict(shard) for shard in shards]}
    path = job.folder / "cache.json"
    if path.is_file():
        written = json.loads(path.read_text())
        if {k: v for k, v in written.items() if k != "checked"} == header:
            return written
    header["checked"] = read_back(job, Cache(job.folder, header))
    _replace(path, header, process_index)
    return header


def read_back(job: Encoding, cache: Cache) -> dict[str, Any]:
    """Read sampled records and encode their pages again: `codes_equal` is the least share of a
    record's codes that came again, `psnr_db` that of the decoded codes to the pages.

    Raises `CacheError` naming the shard of a record that is not the source's.
    """
    read = [cache[index] for index in job.sampled]
    source, pages = job.drawn(job.sampled)
    starts = range(0, len(read), job.chunk)
    again = {
        name: np.concatenate([job.codes(pictures[i : i + job.chunk]) for i in starts])
        for name, pictures in pages.items()
    }
    shares = [min(float(np.mean(r[n] == again[n][i])) for n in NAMES) for i, r in enumerate(read)]
    for index, record, wanted, share in zip(job.sampled, read, source, shares, strict=True):
        same = all(record[name] == wanted[name] for name in ("prompt", "blueprint"))
        if not same or share < _LEAST_EQUAL:
            what = f"has {share:.1%} of its page's codes" if same else "is of another page"
            raise CacheError(
                f"record {index} of the cache, in {job.folder / cache.shard_of(index).name}, "
                f"{what}: remove that file and run scripts/encode.py again"
            )
    codes = np.stack([record["codes"] for record in read]).astype(np.int32)
    painted = np.asarray(job.coder.decode(codes))
    distance = psnr_db(np.stack(pages["codes"]), painted)
    return {"records": job.sampled, "codes_equal": min(shares), "psnr_db": round(distance, 2)}
