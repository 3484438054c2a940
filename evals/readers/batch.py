"""Many pictures, several processes, one list of what was read."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from evals.readers.cache import Found, ReadCache
from evals.readers.crops import Quad
from evals.readers.lines import Picture, PictureError, Reader, ReaderError, ReadLine

Source = str | Path | np.ndarray | Callable[[], np.ndarray]

_AHEAD = 4  # pictures in memory for each process: enough that none waits


@dataclasses.dataclass(frozen=True)
class ReadPicture:
    """What was read on a picture of `size_px` (width, height): its lines in reading order, or the
    strings of its quads. `problem` says why nothing could be read; it is empty when all went
    well, even if there is no text."""

    lines: tuple[ReadLine, ...] = ()
    size_px: tuple[int, int] = (0, 0)
    crops: tuple[str, ...] = ()
    problem: str = ""


def read_all(
    reader: Reader,
    pictures: Sequence[Source],
    *,
    quads: Sequence[Sequence[Quad]] | None = None,
    cache: Path | None = None,
    num_processes: int = 0,
    progress: bool = True,
) -> list[ReadPicture]:
    """What `reader` finds on each picture, in their order.

    `pictures` are image files, arrays uint8 [Y X 3], or functions that give such an array, which
    are called when their turn comes. With `quads`, a tuple for each picture, each is read in its
    quads alone and not whole. `cache` is a folder of results: what is in it is not read again.
    More than one of `num_processes` are started fresh, with one thread each; only a few pictures
    are in memory at once.

    A picture that cannot be opened or read comes back with its `problem`. Raises `ReaderError` when
    the engine itself cannot go on, or a process dies.
    """
    if quads is not None and len(quads) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures have {len(quads)} tuples of quads")
    kept = ReadCache(cache, reader) if cache is not None else None
    results: dict[int, ReadPicture] = {}
    bar = tqdm(
        total=len(pictures), desc="read", unit="picture", mininterval=5, disable=not progress
    )

    def note(job: _Job, outcome: Found | str) -> None:
        results[job.place] = _result(job, outcome)
        bar.update()

    with bar, _Readers(reader, num_processes, kept) as readers:
        for place, source in enumerate(pictures):
            job = _Job(place, str(source) if isinstance(source, str | Path) else f"picture {place}")
            try:
                picture = load(source)
            except (OSError, ValueError) as error:
                note(job, f"it cannot be opened ({error})")
                continue
            job = dataclasses.replace(job, size_px=(picture.shape[1], picture.shape[0]))
            framed = None if quads is None else tuple(quads[place])
            for done, outcome in readers.hand(job, picture, framed):
                note(done, outcome)
        for done, outcome in readers.rest():
            note(done, outcome)
    return [results[place] for place in range(len(pictures))]


def load(source: Source) -> Picture:
    """A picture's pixels: upright, three channels, what is transparent on white.

    Raises `OSError` when a file is missing or no image, `ValueError` when an array is not uint8
    [Y X 3].
    """
    if isinstance(source, str | Path):
        try:
            with Image.open(source) as file:
                return _three_channels(ImageOps.exif_transpose(file))
        except OSError:
            raise
        except Exception as error:  # decoders of broken files raise what they like
            raise OSError(f"{type(error).__name__}: {error}") from error
    picture = source() if callable(source) else source
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"it is {picture.dtype} {list(picture.shape)}, and not uint8 [Y X 3]")
    return np.ascontiguousarray(picture)


def _three_channels(image: Image.Image) -> Picture:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


@dataclasses.dataclass(frozen=True)
class _Job:
    place: int
    name: str
    size_px: tuple[int, int] = (0, 0)
    key: str = ""


def _result(job: _Job, outcome: Found | str) -> ReadPicture:
    if isinstance(outcome, str):
        return ReadPicture(size_px=job.size_px, problem=f"{job.name} is not read: {outcome}")
    return ReadPicture(outcome.lines, job.size_px, outcome.crops)


def _find(reader: Reader, picture: Picture, quads: tuple[Quad, ...] | None) -> Found | str:
    """What is found, or why nothing could be."""
    try:
        if quads is None:
            return Found(lines=tuple(reader.read(picture)))
        return Found(crops=tuple(reader.read_crops(picture, quads)))
    except PictureError as error:
        return str(error)


class _Readers:
    """What was kept, and one reader here or a pool of them, started when there is something to
    read."""

    def __init__(self, reader: Reader, num_processes: int, kept: ReadCache | None) -> None:
        self._reader = reader
        self._num_processes = num_processes
        self._kept = kept
        self._pool: ProcessPoolExecutor | None = None
        self._waiting: collections.deque[tuple[_Job, Future]] = collections.deque()

    def __enter__(self) -> _Readers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def hand(
        self, job: _Job, picture: Picture, quads: tuple[Quad, ...] | None
    ) -> Iterator[tuple[_Job, Found | str]]:
        """Take a picture, and give what has been found on this one or earlier ones."""
        if self._kept is not None:
            job = dataclasses.replace(job, key=self._kept.key(picture, quads))
            if (found := self._kept.get(job.key)) is not None:
                yield job, found
                return
        if self._num_processes <= 1:
            yield self._keep(job, _find(self._reader, picture, quads))
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._num_processes, multiprocessing.get_context("spawn"),
                initializer=_begin, initargs=(self._reader.on_one_thread(),),
            )  # fmt: skip
        with self._told(job):
            self._waiting.append((job, self._pool.submit(_find_here, picture, quads)))
        while len(self._waiting) > _AHEAD * self._num_processes:
            yield self._first()

    def rest(self) -> Iterator[tuple[_Job, Found | str]]:
        """What is still being read."""
        while self._waiting:
            yield self._first()

    def _first(self) -> tuple[_Job, Found | str]:
        job, future = self._waiting.popleft()
        with self._told(job):
            return self._keep(job, future.result())

    def _keep(self, job: _Job, outcome: Found | str) -> tuple[_Job, Found | str]:
        if self._kept is not None and isinstance(outcome, Found):
            self._kept.put(job.key, outcome)
        return job, outcome

    @contextlib.contextmanager
    def _told(self, job: _Job) -> Iterator[None]:
        try:
            yield
        except BrokenProcessPool as error:
            raise ReaderError(
                f"a reading process died at or soon after {job.name}, most often for want of "
                "memory; start again with fewer processes (0 reads in this one and shows the "
                "error): what a cache has is kept"
            ) from error


_reader: Reader | None = None  # of a pool's process


def _begin(reader: Reader) -> None:
    global _reader
    _reader = reader


def _find_here(picture: Picture, quads: tuple[Quad, ...] | None) -> Found | str:
    assert _reader is not None
    return _find(_reader, picture, quads)
