"""Records of benchmarks' own files, and errors that name the file, the record and the field.

A prompt without text makes its record an error wherever the published benchmark has none such: a
case with nothing to read would count for nothing in every average of words, and so leave it unseen.
Benchmarks whose evaluators meet such prompts keep them as cases without targets, in a group of
their own, and say so.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.scoring import Case

_UNFIT = re.compile(r"[^\w.+-]+")


class DataError(ValueError):
    """A file that is not as the benchmark publishes it; the message names the place."""


def find(path: Path | None, names: Sequence[str], where: str, *, several: bool = False) -> Path:
    """The first of `names` (paths as in the benchmark's repository) that is a file below `path`,
    or `path` itself where that is a file, unless the benchmark has `several`.

    Raises `FileNotFoundError` that says from `where` to get it.
    """
    if path is None:
        raise FileNotFoundError(f"no path was given to {names[0]}: get it from {where}")
    if path.is_file() and several:
        raise FileNotFoundError(f"{path} is a file: give the folder that has {names[0]} in it")
    for file in (path, *(path / name for name in names)):
        if file.is_file():
            return file
    raise FileNotFoundError(f"there is no {' or '.join(names)} in {path}: get it from {where}")


@dataclasses.dataclass(frozen=True)
class Record:
    """Fields of one record and its `place`, which begins every error about it."""

    place: str
    fields: Mapping[str, Any]

    def wrong(self, problem: str) -> DataError:
        """The error that this record `problem`, which ends a sentence about it."""
        return DataError(f"{self.place} {problem}; fetch the file anew")

    def get(self, key: str, what: str, sound: Callable[[Any], bool]) -> Any:
        """A field that is sound; raises `DataError` that it is not `what`."""
        if key not in self.fields:
            raise self.wrong(f"has no `{key}`")
        if not sound(self.fields[key]):
            raise self.wrong(f"has a `{key}` that is not {what}: {str(self.fields[key])[:40]!r}")
        return self.fields[key]

    def string(self, key: str) -> str:
        """A string with letters in it."""
        return self.get(key, "a text", _has_text)

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of such strings, at least one."""
        return tuple(self.get(key, "a list of texts", _are_texts))

    def name(self, key: str) -> str:
        """A number or string that names the record."""
        found = self.get(key, "a number or name", lambda v: type(v) is int or _has_text(v))
        return str(found)

    def number(self, key: str) -> float:
        """A positive number."""
        good = (int, float)
        return float(self.get(key, "a positive number", lambda v: type(v) in good and v > 0))

    def records(self, key: str) -> list[Record]:
        """A list of mappings, each named by its number from 0."""
        rows = self.get(key, "a list", lambda v: isinstance(v, list))
        return [_record(f"{self.place}, {key} {i}", row) for i, row in enumerate(rows)]


def _has_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_has_text, value))


def _record(place: str, value: Any) -> Record:
    if not isinstance(value, Mapping):
        raise DataError(f"{place} is no record with fields; fetch the file anew")
    return Record(place, value)


def text(path: Path) -> str:
    """The text of a file; raises `DataError` for one that is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; fetch the file anew") from None


def whole(path: Path) -> Any:
    """What a JSON file says; raises `DataError` when it is none."""
    try:
        return json.loads(text(path))
    except ValueError as problem:
        if isinstance(problem, DataError):
            raise
        raise DataError(f"{path} is no JSON ({problem}); fetch the file anew") from None


def json_record(path: Path) -> Record:
    """The mapping in a JSON file."""
    return _record(str(path), whole(path))


def json_list(path: Path) -> list[Record]:
    """The list of mappings in a JSON file, each named by its number from 0."""
    rows = whole(path)
    if not isinstance(rows, list):
        raise DataError(f"{path} is no list of records; fetch the file anew")
    return [_record(f"{path}, record {i}", row) for i, row in enumerate(rows)]


def jsonl(path: Path) -> list[Record]:
    """The mappings of a JSONL file; blank lines are none."""
    found = []
    for i, line in _numbered(path):
        try:
            value = json.loads(line) if line.strip() else ...
        except json.JSONDecodeError:
            raise DataError(f"{path}, line {i} is no JSON; fetch the file anew") from None
        if value is not ...:
            found.append(_record(f"{path}, line {i}", value))
    return found


def table(path: Path, columns: Sequence[str]) -> list[Record]:
    """The rows of a CSV file with at least these columns, as strings."""
    reader = csv.DictReader(io.StringIO(text(path), newline=""))
    if missing := [c for c in columns if c not in (reader.fieldnames or ())]:
        raise DataError(f"{path} has no column `{missing[0]}`; fetch the file anew")
    return [Record(f"{path}, row {i}", row) for i, row in enumerate(reader)]


def lines(path: Path) -> list[Record]:
    """The lines of a text file, each as `{"prompt": line}`; blank ones at the end are none."""
    rows = _numbered(path)
    while rows and not rows[-1][1].strip():
        rows.pop()
    return [Record(f"{path}, line {i}", {"prompt": line.strip()}) for i, line in rows]


def _numbered(path: Path) -> list[tuple[int, str]]:
    # Not str.splitlines, which also breaks at characters that JSON and prompts may have in them.
    return list(enumerate(text(path).split("\n"), 1))


def fit_name(name: str) -> str:
    """A name that may be a file's: what is neither letter, digit, `_`, `.`, `+` nor `-` is `-`."""
    return _UNFIT.sub("-", name)


def checked(cases: Iterable[Case], path: Path | None) -> list[Case]:
    """The cases; raises `DataError` when there are none, or two of them would have one file name
    where capitals do not matter."""
    found = list(cases)
    if not found:
        raise DataError(f"{path} has no records; fetch it anew")
    seen: set[str] = set()
    for case in found:
        if case.name != fit_name(case.name):
            raise DataError(f"{path} names a record {case.name!r}, which no file can be called")
        if case.name.casefold() in seen:
            raise DataError(f"{path} has two records called {case.name!r}; fetch it anew")
        seen.add(case.name.casefold())
    return found
