"""Where an element of the page, words that may be broken into lines, stands among what was read."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from evals.metrics.remembering import remember_last
from evals.metrics.words import words_of
from evals.readers.lines import ReadLine, same_row
from evals.scoring import Case, Reading

TRAILING = ".,:;!?。、 "  # what may be left off an element's end
Place = tuple[int, int]  # (line, word of the line)


def strings_of(reading: Reading) -> tuple[str, ...]:
    """What was read on a picture, or in its crops if it was read in these alone."""
    return reading.strings or reading.crops


def crop_pairs(case: Case, reading: Reading) -> list[tuple[str, str]]:
    """Each target and what was read in its crop: nothing on a picture where nothing was read.

    Raises `ValueError` when the picture was read whole, or targets, quads and crops are not as
    many.
    """
    crops = reading.crops if strings_of(reading) else ("",) * len(case.targets)
    if not len(crops) == len(case.quads) == len(case.targets):
        raise ValueError(
            f"{case.name}: {len(case.targets)} targets, {len(case.quads)} quads and {len(crops)} "
            "crops that were read; give each target one quad and the benchmark crops=True"
        )
    return list(zip(case.targets, crops, strict=True))


def without_trailing(string: str) -> str:
    """A string without the stops that end it, or itself when there is nothing else."""
    return string.rstrip(TRAILING) or string


def _shared(low: float, size: float, other_low: float, other_size: float) -> float:
    return min(low + size, other_low + other_size) - max(low, other_low)


class ReadPage:
    """What was read on a page, as words between which a text may run on.

    A text goes on from the end of a line with the first word of the next line in reading order, of
    the nearest line to the right in the same row, or of the leftmost line of the nearest row
    beneath among those that share some of its width. So columns do not interrupt each other, and a
    line that was read as two pieces is one again.
    """

    def __init__(self, lines: Sequence[ReadLine], language: str = "en") -> None:
        rows = [(line, words_of([line.string], language)) for line in lines]
        self.lines = [line for line, words in rows if words]
        self.words = [words for _, words in rows if words]
        self._successors = functools.cache(self._find_successors)
        self._starts: dict[str, list[Place]] = {}
        for i, words in enumerate(self.words):
            for j, word in enumerate(words):
                self._starts.setdefault(word, []).append((i, j))

    def _find_successors(self, i: int) -> tuple[int, ...]:
        line = self.lines[i]
        left, top, width, height = line.box_px
        found = [i + 1] if i + 1 < len(self.lines) else []
        others = [j for j in range(len(self.lines)) if j != i]
        right = [
            j for j in others
            if same_row(line, self.lines[j]) and self.lines[j].box_px[0] > left
        ]  # fmt: skip
        if right:
            found.append(min(right, key=lambda j: self.lines[j].box_px[0]))
        beneath = [
            j for j in others
            if self.lines[j].box_px[1] + self.lines[j].box_px[3] / 2 > top + height
            and _shared(left, width, self.lines[j].box_px[0], self.lines[j].box_px[2]) > 0
        ]  # fmt: skip
        if beneath:
            nearest = self.lines[min(beneath, key=lambda j: self.lines[j].box_px[1])]
            row = [j for j in beneath if same_row(nearest, self.lines[j])] or beneath
            found.append(min(row, key=lambda j: self.lines[j].box_px[0]))
        return tuple(dict.fromkeys(found))

    def _next(self, place: Place) -> list[Place]:
        i, j = place
        if j + 1 < len(self.words[i]):
            return [(i, j + 1)]
        return [(k, 0) for k in self._successors(i)]

    def _says(self, place: Place, word: str, *, last: bool, folded: bool) -> bool:
        read = self.words[place[0]][place[1]]
        return read == word or (last and folded and without_trailing(read) == word)

    def find(
        self, words: Sequence[str], spent: set[Place], *, folded: bool = False
    ) -> list[Place] | None:
        """A run of unspent words that says exactly these, or None; with `folded` stops behind the
        last one do not count."""
        say = functools.partial(self._says, folded=folded)
        only = len(words) == 1
        if only and folded:
            firsts = [(i, j) for i, row in enumerate(self.words) for j in range(len(row))]
        else:
            firsts = self._starts.get(words[0], [])
        paths = [[p] for p in reversed(firsts) if p not in spent and say(p, words[0], last=only)]
        tried: set[tuple[int, Place]] = set()  # else a page of one repeated word takes for ever
        while paths:
            path = paths.pop()
            if len(path) == len(words):
                return path
            word, last = words[len(path)], len(path) + 1 == len(words)
            for place in reversed(self._next(path[-1])):
                free = place not in spent and place not in path and (len(path), place) not in tried
                if free and say(place, word, last=last):
                    tried.add((len(path), place))
                    paths.append([*path, place])
        return None


read_page = remember_last(ReadPage)


def found_elements(
    targets: Sequence[str], page: ReadPage, *, language: str = "en", folded: bool = False
) -> list[bool]:
    """For each target with words in it, whether it was read exactly, in some run of words; longer
    targets choose first, and no read word serves two."""
    rows = [words_of([without_trailing(t) if folded else t], language) for t in targets]
    rows = [words for words in rows if words]
    spent: set[Place] = set()
    found = [False] * len(rows)
    for i in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
        path = page.find(rows[i], spent, folded=folded)
        if path is not None:
            found[i] = True
            spent.update(path)
    return found
