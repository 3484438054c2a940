"""Two readers, and of each line what the surer one read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from evals.readers.crops import Quad
from evals.readers.lines import Picture, Reader, ReadLine, overlap, reading_order

_SAME_LINE = 0.5  # of the smaller box is shared
_PARTIAL = 0.5  # of the other's characters: who read fewer has missed a part of the line

# Engine -> (its confidence, the share of its lines around there that were right), monotone:
# measured on 190 procedural pages of 256 px, sharp, blurred, shrunk or noisy, against the true line
# at the place, with rapidocr 3.10 (590 lines) and Tesseract 5.3 eng (3,861, most of them specks).
CALIBRATION: Mapping[str, tuple[tuple[float, float], ...]] = {
    "rapidocr": (
        (0.0, 0.0), (0.75, 0.1), (0.88, 0.22), (0.915, 0.43),
        (0.945, 0.68), (0.97, 0.78), (0.985, 0.91), (1.0, 0.99),
    ),
    "tesseract": (
        (0.0, 0.0), (0.65, 0.04), (0.75, 0.18), (0.825, 0.47),
        (0.875, 0.7), (0.93, 0.86), (0.97, 0.92),
    ),
}  # fmt: skip


def calibrated(reader: Reader, lines: Sequence[ReadLine]) -> list[ReadLine]:
    """Lines whose confidence is the chance that they are right, where the engine's is known; of
    others it stays what the engine says."""
    if (table := CALIBRATION.get(reader.identity.get("engine", ""))) is None:
        return list(lines)
    said, right = zip(*table, strict=True)
    scores = np.interp([line.confidence for line in lines], said, right)
    return [
        dataclasses.replace(line, confidence=float(score))
        for line, score in zip(lines, scores, strict=True)
    ]


class BestOfBoth(Reader):
    """`first` and `second` read; lines that overlap are one, and the more confident reading of it
    stays. Where only `first` saw a line it stays; where only `second` did, it stays when its
    confidence is at least `alone_from`.

    Engines mean different things by confidence, so both are first calibrated, and the lines carry
    what came of it. One engine's single line may be two of the other's: then all of them stand
    against it, with their mean confidence by length. Equal confidence, and a second reading with
    less than half of the characters, leave the first. Crops carry no confidence: there the
    second's answer counts where the first has none.
    """

    def __init__(self, first: Reader, second: Reader, *, alone_from: float = 0.85) -> None:
        self.first = first
        self.second = second
        self.alone_from = alone_from
        self.name = f"best of {first.name} and {second.name}"

    @property
    def identity(self) -> Mapping[str, str]:
        """Both readers', and the rule between them."""
        parts = {"first": self.first, "second": self.second}
        return {
            "engine": "best of both",
            "alone_from": str(self.alone_from),
            **{
                f"{place}_{key}": value
                for place, reader in parts.items()
                for key, value in reader.identity.items()
            },
            **{
                f"{place}_calibration": str(CALIBRATION.get(reader.identity["engine"], "as said"))
                for place, reader in parts.items()
            },
        }

    def read(self, picture: Picture) -> list[ReadLine]:
        """Every line once."""
        first = calibrated(self.first, self.first.read(picture))
        second = calibrated(self.second, self.second.read(picture))
        kept: list[ReadLine] = []
        for mine, other in _same_lines(first, second):
            if not mine:
                kept += [line for line in other if line.confidence >= self.alone_from]
            elif other and _chars(other) >= _PARTIAL * _chars(mine) and _sure(other) > _sure(mine):
                kept += other
            else:
                kept += mine
        return reading_order(kept)

    def read_crops(self, picture: Picture, quads: Sequence[Quad]) -> list[str]:
        """The first's strings; the second's where the first has none."""
        strings = self.first.read_crops(picture, quads)
        blank = [i for i, string in enumerate(strings) if not string]
        found = self.second.read_crops(picture, [quads[i] for i in blank]) if blank else []
        for i, string in zip(blank, found, strict=True):
            strings[i] = string
        return strings

    def on_one_thread(self) -> BestOfBoth:
        """Both on one."""
        first, second = self.first.on_one_thread(), self.second.on_one_thread()
        return BestOfBoth(first, second, alone_from=self.alone_from)


def _same_lines(
    first: Sequence[ReadLine], second: Sequence[ReadLine]
) -> list[tuple[list[ReadLine], list[ReadLine]]]:
    """The lines of both, in groups that overlap: connected parts of the graph between them."""
    groups: list[tuple[list[ReadLine], list[ReadLine]]] = [([line], []) for line in first]
    for line in second:
        touched = [group for group in groups if any(_same(line, mine) for mine in group[0])]
        groups = [group for group in groups if group not in touched]
        mine = [a for group in touched for a in group[0]]
        groups.append((mine, [*(b for group in touched for b in group[1]), line]))
    return groups


def _same(a: ReadLine, b: ReadLine) -> bool:
    smaller = min(a.box_px[2] * a.box_px[3], b.box_px[2] * b.box_px[3])
    return smaller > 0 and overlap(a.box_px, b.box_px) >= _SAME_LINE * smaller


def _chars(lines: Sequence[ReadLine]) -> int:
    return sum(len(line.string.replace(" ", "")) for line in lines)


def _sure(lines: Sequence[ReadLine]) -> float:
    weights = [max(1, len(line.string)) for line in lines]
    return float(np.average([line.confidence for line in lines], weights=weights))
