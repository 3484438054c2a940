"""Pictures that any system made of a benchmark's prompts: found in a folder, checked, and read.

A folder has `NAME.png`, or `NAME_0.png`, `NAME_1.png` and so on where there are several of a
prompt; NAME is the case's, and jpg, jpeg and webp will do. Or its `manifest.jsonl` says which file
is whose, one object a line: `{"name": ..., "file": ..., "prompt": ..., "seed": ...}`, the last two
if one likes; pictures of one name count in the order of their lines.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from evals.readers import Quad, ReadPicture, load
from evals.readers.batch import Source
from evals.scoring import Case, Reading

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MANIFEST = "manifest.jsonl"
_NUMBERED = re.compile(r"(.+)_(0|[1-9]\d*)")
_NAMED = 5  # how many names a message gives


class PicturesError(ValueError):
    """A folder that does not have the pictures of a benchmark."""


class Read(Protocol):
    """What reads pictures: `functools.partial(read_all, reader)`, for one."""

    def __call__(
        self, pictures: Sequence[Source], *, quads: Sequence[Sequence[Quad]] | None = None
    ) -> Sequence[ReadPicture]:
        """What is on each picture, in order; in its quads alone if there are any."""
        ...


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file that is said to be a case's picture; `number` is its place among those of the case,
    None for the next free one."""

    name: str
    path: Path
    number: int | None
    prompt: str | None = None
    seed: int | None = None


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The files of each case's pictures, None for one that is lost: it counts as a picture on which
    nothing was read. `missing` names all those, with what is wrong with a file that is there;
    `notes` are the sentences that a score of these pictures should be printed with."""

    paths: tuple[tuple[Path | None, ...], ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def told(what: str, names: Iterable[str], *, of: int | None = None) -> str:
    """A problem, how many (of so many) have it, and the first of their names."""
    names = list(names)
    more = ", ..." if len(names) > _NAMED else ""
    total = f" of {of}" if of else ""
    return f"{what} ({len(names)}{total}): {', '.join(names[:_NAMED])}{more}"


def gather(
    folder: Path,
    cases: Sequence[Case],
    *,
    images_per_prompt: int | None = None,
    missing_ok: bool = False,
) -> Pictures:
    """The pictures of every case in a folder, each opened once.

    Every case has `images_per_prompt` of them, or without it as many as the case that has most.
    Raises `PicturesError` when two files are the same picture of a case, when there is no picture
    at all, and, unless `missing_ok`, when one is missing or cannot be opened; it lists them all.
    """
    if not folder.is_dir():
        raise PicturesError(
            f"{folder} is no folder; it should have the pictures of {_example(cases)}"
        )
    known = {case.name: place for place, case in enumerate(cases)}
    entries, strangers = _entries(folder, known)
    found: list[dict[int, Entry]] = [{} for _ in cases]
    twice = [path.name for path, n in Counter(e.path for e in entries).items() if n > 1]
    for entry in entries:
        own = found[known[entry.name]]
        number = len(own) if entry.number is None else entry.number
        if number in own:
            twice += [own[number].path.name, entry.path.name]
        own[number] = entry
    if twice:
        told_twice = told("files listed twice or as the same picture", dict.fromkeys(twice))
        raise PicturesError(f"{folder}: {told_twice}; keep one entry for each picture of a case")
    if not entries:
        more = f"; {told('names of no case', strangers)}" if strangers else ""
        raise PicturesError(f"{folder} has no picture of {_example(cases)}{more}")
    count = images_per_prompt or 1 + max(max(own, default=0) for own in found)
    notes = tuple(_notes(cases, found, count, strangers))
    return _checked(folder, cases, found, count, notes, missing_ok=missing_ok)


def _example(cases: Sequence[Case]) -> str:
    name = cases[0].name
    return f"{len(cases)} cases, named like {name}.png or {name}_0.png, {name}_1.png"


def _checked(
    folder: Path,
    cases: Sequence[Case],
    found: Sequence[Mapping[int, Entry]],
    count: int,
    notes: tuple[str, ...],
    *,
    missing_ok: bool,
) -> Pictures:
    """`count` pictures a case, each opened once."""
    wanted = [
        (case.name if count == 1 else f"{case.name} ({number})", own.get(number))
        for case, own in zip(cases, found, strict=True)
        for number in range(count)
    ]
    bar = tqdm(wanted, desc="check", unit="picture", mininterval=5, delay=5)
    opened = [(label, entry, _problem(entry)) for label, entry in bar]
    missing = [label for label, _, problem in opened if problem is None]
    broken = {entry.path.name: problem for _, entry, problem in opened if entry and problem}
    lost = []
    if missing:
        lost.append(told("missing pictures", missing, of=len(wanted)))
    if broken:
        first = next(iter(broken.values()))
        told_broken = told("pictures that cannot be opened", broken, of=len(wanted))
        lost.append(f"{told_broken} (the first: {first})")
    if lost and not missing_ok:
        raise PicturesError(
            f"{folder}: {'; '.join([*lost, *notes])}. Make them again, or let them count as "
            "pictures on which nothing is read (missing_ok)"
        )
    paths = [entry.path if entry and problem == "" else None for _, entry, problem in opened]
    names = (*missing, *(f"{name} ({problem})" for name, problem in broken.items()))
    rows = tuple(tuple(paths[i : i + count]) for i in range(0, len(paths), count))
    return Pictures(rows, names, (*lost, *notes))


def _notes(
    cases: Sequence[Case],
    found: Sequence[Mapping[int, Entry]],
    count: int,
    strangers: Sequence[str],
) -> Iterator[str]:
    """What is odd about a folder and still lets it be scored."""
    if strangers:
        yield told(f"names of none of the {len(cases)} cases", strangers)
    if extra := [e.path.name for own in found for k, e in own.items() if k >= count]:
        yield told(f"pictures beyond {count} a prompt, which are not scored", extra)
    pairs = zip(cases, found, strict=True)
    if other := [c.name for c, own in pairs if any(_differs(e, c) for e in own.values())]:
        yield told("cases given another prompt than the benchmark's", other)


def _differs(entry: Entry, case: Case) -> bool:
    return entry.prompt is not None and entry.prompt.split() != case.prompt.split()


def _problem(entry: Entry | None) -> str | None:
    """Why a file cannot be opened, "" if it can, None if there is none."""
    if entry is None or not entry.path.is_file():
        return None
    try:
        load(entry.path)
    except OSError as error:
        return str(error)
    return ""


def _entries(folder: Path, known: Mapping[str, int]) -> tuple[list[Entry], list[str]]:
    """The entries of known cases, and the names of the others."""
    if (folder / MANIFEST).is_file():
        entries = list(_listed(folder))
        strangers = dict.fromkeys(e.name for e in entries if e.name not in known)
        return [e for e in entries if e.name in known], list(strangers)
    entries, strangers = [], []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        numbered = _NUMBERED.fullmatch(path.stem)
        if path.stem in known:
            if numbered and numbered[1] in known:
                raise PicturesError(
                    f"{path.name} could be the picture of {path.stem} or picture {numbered[2]} of "
                    f"{numbered[1]}; say which in {folder / MANIFEST}"
                )
            entries.append(Entry(path.stem, path, 0))
        elif numbered and numbered[1] in known:
            entries.append(Entry(numbered[1], path, int(numbered[2])))
        else:
            strangers.append(path.name)
    return entries, strangers


def _listed(folder: Path) -> Iterator[Entry]:
    """The entries of a manifest; raises `PicturesError` with the line of one that is none."""
    path = folder / MANIFEST
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise PicturesError(f"{path}, line {number} is no JSON: {error}") from None
        kinds: dict[str, type] = {"name": str, "file": str, "prompt": str, "seed": int}
        if not isinstance(value, dict) or not {"name", "file"} <= value.keys() <= kinds.keys():
            raise PicturesError(
                f'{path}, line {number}: a picture is {{"name": ..., "file": ...}}, with "prompt" '
                f'and "seed" if you like, and not {line.strip()[:80]}'
            )
        for key, kind in kinds.items():
            if key in value and not isinstance(value[key], kind):
                raise PicturesError(f"{path}, line {number}: {key} is no {kind.__name__}")
        yield Entry(
            value["name"], folder / value["file"], None, value.get("prompt"), value.get("seed")
        )


def as_reading(found: ReadPicture, source: Source, *, size_px: tuple[int, int]) -> Reading:
    """What was found, for the metrics; with a problem it is nothing on `size_px`."""
    if found.problem:
        return nothing_read(size_px)
    return Reading(found.lines, found.size_px, found.crops, functools.partial(load, source))


def nothing_read(size_px: tuple[int, int]) -> Reading:
    """The reading of a picture that is not there, as of a blank one of that size."""
    width, height = size_px
    blank = functools.partial(np.full, (height, width, 3), 255, np.uint8)
    return Reading((), size_px, look=blank)


def read_pictures(
    pictures: Pictures, cases: Sequence[Case], read: Read, *, crops: bool = False
) -> tuple[list[list[Reading]], tuple[str, ...]]:
    """The readings of each case's pictures, those that are lost among them as nothing read; and
    what the reader could not read, which counts likewise. With `crops` each is read in the case's
    quads alone."""
    places = [(i, k) for i, row in enumerate(pictures.paths) for k, path in enumerate(row) if path]
    paths = [path for row in pictures.paths for path in row if path]
    quads = [cases[i].quads for i, _ in places] if crops else None
    found = dict(zip(places, read(paths, quads=quads), strict=True))
    sizes = Counter(picture.size_px for picture in found.values() if not picture.problem)
    usual = sizes.most_common(1)[0][0] if sizes else (1024, 1024)
    readings = [
        [
            as_reading(found[i, k], path, size_px=usual) if path else nothing_read(usual)
            for k, path in enumerate(row)
        ]
        for i, row in enumerate(pictures.paths)
    ]
    return readings, tuple(picture.problem for picture in found.values() if picture.problem)


def write_prompts(cases: Sequence[Case], path: Path, *, images_per_prompt: int) -> None:
    """What a system is to be given, one JSON object a line: `name`, `prompt`, `images`, the number
    of pictures wanted; where the benchmark has them also `lines`, each a `text` and the `quad` it
    is to stand in (corners in shares of the picture), and `source`, a picture to begin with."""
    with path.open("w", encoding="utf-8") as file:
        for case in cases:
            row: dict[str, Any] = {
                "name": case.name, "prompt": case.prompt, "images": images_per_prompt
            }  # fmt: skip
            if case.quads:
                pairs = zip(case.targets, case.quads, strict=True)
                row["lines"] = [{"text": text, "quad": quad} for text, quad in pairs]
            if case.source:
                row["source"] = str(case.source)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
