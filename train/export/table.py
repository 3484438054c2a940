"""Name tables: which of our arrays is which tensor of another library, and how its axes turn."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from einops import rearrange

from train.export.tensors import Stored, Writer

Shapes = Mapping[str, tuple[Any, tuple[int, ...]]]
Change = Callable[[np.ndarray], np.ndarray]


class ExportError(ValueError):
    """A model that the other format cannot express, or tensors that are not those of a table."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A tensor of theirs and the array of ours that it is (a part of).

    `how` turns ours into theirs as einops writes it, `"D N H -> (N H) D"`, with the `sizes` of axes
    that only stand inside of brackets on the left; `""` leaves the axes as they are. With `{}` in
    `theirs` our array is stacked: entry i of its first axis is the tensor of layer i, and `how` is
    about one entry. Rows of one and the same `theirs` follow each other along its first axis.
    `change` and `back` keep the shape: what becomes of values beside, on the way out and in. A row
    with `made` above 0 is so many rows that `change` makes of ours, which are not read back.
    """

    theirs: str
    ours: str
    how: str = ""
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    change: Change | None = None
    back: Change | None = None
    made: int = 0


@dataclasses.dataclass(frozen=True)
class Piece:
    """A row, or one layer of a stacked one: from `row` on in theirs, entry `layer` of ours."""

    what: Row
    theirs: str
    shape: tuple[int, ...]
    row: int
    layer: int | None
    axes: Mapping[str, int]

    def outwards(self, ours: np.ndarray) -> np.ndarray:
        """Our array, or its one entry, as theirs."""
        how = self.what.how
        turned = rearrange(ours, how, **self.what.sizes) if how else ours
        return self.what.change(turned) if self.what.change else turned

    def inwards(self, theirs: np.ndarray) -> np.ndarray:
        """The inverse."""
        changed = self.what.back(theirs) if self.what.back else theirs
        left, _, right = self.what.how.partition("->")
        return rearrange(changed, f"{right} -> {left}", **self.axes) if right else changed


def _tokens(side: str) -> list[list[str]]:
    return [token.strip("()").split() for token in re.findall(r"\([^)]*\)|\S+", side)]


@functools.cache
def _sides(how: str) -> tuple[list[list[str]], list[list[str]]]:
    left, _, right = how.partition("->")
    return _tokens(left), _tokens(right)


def _axes(row: Row, shape: tuple[int, ...]) -> dict[str, int]:
    """The size of every axis that `how` names, from our shape."""
    left, _ = _sides(row.how)
    known = dict(row.sizes)
    if len(left) != len(shape):
        raise ExportError(f"{row.ours} is {list(shape)} and its row says {row.how!r}")
    for token, size in zip(left, shape, strict=True):
        open_ = [name for name in token if name not in known and not name.isdigit()]
        rest = math.prod(known.get(name, 1) for name in token)
        if len(open_) > 1 or size % rest or (not open_ and rest != size):
            raise ExportError(f"{row.ours} is {list(shape)}, which {row.how!r} cannot cut")
        known |= dict.fromkeys(open_, size // rest)
    return known


def _their_shape(row: Row, axes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(math.prod(axes.get(name, 1) for name in token) for token in _sides(row.how)[1])


@dataclasses.dataclass(frozen=True)
class Table:
    """All rows of a format for one config.

    `left_out` are patterns of arrays of ours that the format has no place for (they go nowhere, and
    come back as initialised); `unused` of tensors of theirs that say nothing; `constants` are what
    a tensor of theirs always is.
    """

    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    constants: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def leaves_out(self, name: str) -> bool:
        """Whether the format has no place for this array of ours."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.left_out)

    def pieces(self, ours: Shapes) -> list[Piece]:
        """Every row and layer with its place; raises `ExportError` naming all rows without an array
        and all arrays without a row."""
        named = {row.ours for row in self.rows}
        problems = [f"there is no {name}" for name in sorted(named - ours.keys())]
        stray = [name for name in ours if name not in named and not self.leaves_out(name)]
        problems += [f"{name} has no place in the format" for name in stray]
        if problems:
            raise ExportError("; ".join(problems))
        found: list[Piece] = []
        filled: dict[str, int] = {}
        for row in self.rows:
            shape = ours[row.ours][1]
            stacked = "{}" in row.theirs
            for layer in range(shape[0]) if stacked else (None,):
                own = shape if layer is None else shape[1:]
                axes = _axes(row, own) if row.how else {}
                theirs = _their_shape(row, axes) if row.how else own
                theirs = (row.made, *theirs[1:]) if row.made else theirs
                name = row.theirs if layer is None else row.theirs.format(layer)
                start = filled.get(name, 0)
                found.append(Piece(row, name, theirs, start, layer, axes))
                filled[name] = start + (theirs[0] if theirs else 1)
        return found

    def their_shapes(self, ours: Shapes, dtype: Any = None) -> dict[str, tuple[Any, Any]]:
        """Name to (dtype, shape) of every tensor of theirs, floats in `dtype` unless it is None."""
        found: dict[str, tuple[Any, Any]] = {}
        for piece in self.pieces(ours):
            own = np.dtype(ours[piece.what.ours][0])
            kind = dtype if dtype and own.kind not in "iub" else own
            shape = piece.shape
            if piece.row:
                shape = (piece.row + shape[0], *shape[1:])
            found[piece.theirs] = (kind, shape)
        return found | {name: (x.dtype, x.shape) for name, x in self.constants.items()}

    def export(self, ours: Mapping[str, Stored], writer: Writer) -> None:
        """Put every tensor of theirs; each array of ours is read once and let go."""
        for name, pieces in self._by(ours, lambda piece: piece.what.ours):
            array = np.asarray(ours[name][...])
            for piece in pieces:
                part = array if piece.layer is None else array[piece.layer]
                writer.put(piece.theirs, piece.outwards(part), row=piece.row)
        for name, constant in self.constants.items():
            writer.put(name, constant)

    def bring_in(
        self, theirs: Mapping[str, Stored], ours: Shapes, writer: Writer, fresh: Mapping[str, Any]
    ) -> list[str]:
        """Put every array of ours, and return the names of those that are `fresh`, for the format
        has none; each tensor of theirs is read once and let go.

        Raises `ExportError` naming every tensor that is missing, unknown or of another shape.
        """
        self.require(theirs, ours)
        for name, pieces in self._by(ours, lambda piece: piece.theirs):
            read = [piece for piece in pieces if not piece.what.made]
            if not read:
                continue
            tensor = np.asarray(theirs[name][...])
            for piece in read:
                end = piece.row + (piece.shape[0] if piece.shape else 1)
                part = tensor[piece.row : end] if piece.shape else tensor
                value = piece.inwards(part)
                if piece.layer is None:
                    writer.put(piece.what.ours, value)
                else:
                    writer.put(piece.what.ours, value[None], row=piece.layer)
        left = [name for name in ours if self.leaves_out(name)]
        for name in left:
            writer.put(name, fresh[name])
        return left

    def require(self, theirs: Mapping[str, Stored], ours: Shapes) -> None:
        """Raise `ExportError` naming every tensor that is missing, unknown or of another shape."""
        wanted = {name: shape for name, (_, shape) in self.their_shapes(ours).items()}
        problems = [
            f"{n} is missing" for n in wanted if n not in theirs and n not in self.constants
        ]
        for name in theirs:
            if name not in wanted:
                if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.unused):
                    problems.append(f"{name} is unknown")
            elif tuple(theirs[name].shape) != wanted[name]:
                there, here = list(theirs[name].shape), list(wanted[name])
                problems.append(f"{name} is {there} and the config makes it {here}")
        if problems:
            shown = "; ".join(problems[:20]) + ("; ..." if len(problems) > 20 else "")
            raise ExportError(
                f"{len(problems)} tensors do not fit ({shown}): take the config of these weights"
            )

    def _by(
        self, ours: Shapes | Mapping[str, Stored], key: Callable[[Piece], str]
    ) -> Iterator[tuple[str, list[Piece]]]:
        shapes = {
            n: v if isinstance(v, tuple) else (v.dtype, tuple(v.shape)) for n, v in ours.items()
        }
        grouped: dict[str, list[Piece]] = {}
        for piece in self.pieces(shapes):
            grouped.setdefault(key(piece), []).append(piece)
        yield from grouped.items()
