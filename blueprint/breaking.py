"""Where the lines of a text may end, so that they come out even: no break that saves no width, no
line far wider than it needs to be, no short line.

Lengths are those of the plain canonical face at one size: the type is not chosen yet when a text is
broken, and faces differ little in which of two lines is the longer.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from blueprint.typeset import PLAIN_FONT, load_font

MEASURED_PX = 64  # the type size of all lengths here
UNEVEN = 1.25  # the widest line may be this many times what it is in the evenest break
SHORT = 0.35  # of the widest line: a line under it is looked down on


def _length(line: str) -> float:
    return max(load_font(PLAIN_FONT, MEASURED_PX).getlength(line), 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Spans:
    """Lengths of every run of a text's words: `px[i, j]` of words i to j - 1, infinite unless i <
    j."""

    px: np.ndarray

    @classmethod
    @functools.lru_cache(maxsize=256)
    def of(cls, string: str) -> Spans:
        """The spans of a string's words."""
        words = string.split(" ")
        px = np.full((len(words) + 1,) * 2, np.inf)
        for i in range(len(words)):
            for j in range(i + 1, len(words) + 1):
                px[i, j] = _length(" ".join(words[i:j]))
        return cls(px)

    @property
    def num_words(self) -> int:
        """How many words there are."""
        return len(self.px) - 1

    @functools.cached_property
    def least_px(self) -> np.ndarray:
        """[n]: how wide the widest of n lines must at least be; infinite for no lines."""
        rest = np.where(np.arange(len(self.px)) == self.num_words, 0.0, np.inf)
        least = [np.inf]
        for _ in range(self.num_words):
            rest = np.maximum(self.px, rest).min(axis=1)
            least.append(float(rest[0]))
        return np.array(least)

    def most_px(self, num_lines: int) -> float:
        """How wide the widest of so many lines may be: `UNEVEN` by the least, and narrower than one
        line fewer would come out (else that line is for nothing). Under the least if nothing is."""
        fewer = self.least_px[num_lines - 1]
        return min(UNEVEN * self.least_px[num_lines], np.nextafter(fewer, 0))

    def endings(self, num_lines: int, most_px: float, least_px: float = 0.0) -> np.ndarray:
        """bool [n, j]: whether the words from j on make n lines of `least_px` to `most_px`."""
        fits = (self.px <= most_px) & (self.px >= least_px)
        table = [np.arange(len(self.px)) == self.num_words]
        for _ in range(num_lines):
            table.append((fits & table[-1]).any(axis=1))
        return np.array(table)

    def shortest_px(self, num_lines: int, most_px: float) -> float:
        """How short a line may be: `SHORT` of the widest, unless that cannot be helped."""
        least = SHORT * most_px
        return least if self.endings(num_lines, most_px, least)[num_lines, 0] else 0.0


def even(string: str, num_lines: int) -> tuple[str, ...]:
    """The string in so many lines, the widest as narrow as can be, and none short if that can be
    helped; of several such, the one whose first lines are the longest."""
    spans, words = Spans.of(string), string.split(" ")
    most = float(spans.least_px[num_lines])
    least = spans.shortest_px(num_lines, most)
    table, lines, at = spans.endings(num_lines, most, least), [], 0
    for left in range(num_lines - 1, -1, -1):
        ends = (spans.px[at] <= most) & (spans.px[at] >= least) & table[left]
        end = int(np.nonzero(ends)[0][-1])
        lines.append(" ".join(words[at:end]))
        at = end
    return tuple(lines)


@dataclasses.dataclass(frozen=True, eq=False)
class _Count:
    """One number of lines that a text may still have: which spans may be a line of it (bool [i,
    j]), and where how many of them may begin (bool [n, j])."""

    fits: np.ndarray
    table: np.ndarray


class Breaks:
    """A text being broken word by word: `may_join` and `may_break` say whether the next word may
    stand on the same line and on a new one, if all is to come out even in the end."""

    def __init__(self, string: str, most_px: Mapping[int, float] | None = None) -> None:
        """`most_px` is how wide so many lines may be, for each number of them; None lets every
        break through. Raises `ValueError` when no number of lines is as narrow."""
        spans = Spans.of(string)
        self._open: dict[int, _Count] | None = None
        if most_px is not None:
            self._open = {}
            for n, most in most_px.items():
                if most >= spans.least_px[n]:
                    least = spans.shortest_px(n, most)
                    fits = (spans.px <= most) & (spans.px >= least)
                    self._open[n] = _Count(fits, spans.endings(n, most, least))
            if not self._open:
                raise ValueError(f"{string!r} cannot be broken as narrow as {dict(most_px)}")
        self._start, self._word, self._lines = 0, 1, 1

    def _after_break(self) -> dict[int, _Count]:
        """The numbers of lines that remain when the line ends here."""
        assert self._open is not None
        here, done = (self._start, self._word), self._lines
        return {
            n: count
            for n, count in self._open.items()
            if n > done and count.fits[here] and count.table[n - done, self._word]
        }

    @property
    def may_break(self) -> bool:
        """Whether the line may end after this word."""
        return self._open is None or bool(self._after_break())

    @property
    def may_join(self) -> bool:
        """Whether the line may go on with the next word."""
        if self._open is None:
            return True
        later = slice(self._word + 1, None)
        return any(
            (count.fits[self._start, later] & count.table[n - self._lines, later]).any()
            for n, count in self._open.items()
            if n >= self._lines
        )

    def take(self, *, ends: bool) -> None:
        """One more word; `ends` says that a line ended before it."""
        if ends:
            self._open = None if self._open is None else self._after_break()
            self._start, self._lines = self._word, self._lines + 1
        self._word += 1


def raggedness(lines: Sequence[str]) -> float:
    """The share of the lines' room that they leave bare, from 0 to below 1; a single line has
    none."""
    px = list(map(_length, lines))
    return 1 - sum(px) / (len(px) * max(px))


def fault(lines: Sequence[str]) -> str:
    """What is wrong with the breaks between lines, or ""."""
    spans, px, n = Spans.of(" ".join(lines)), list(map(_length, lines)), len(lines)
    if n == 1:
        return ""
    if spans.least_px[n - 1] <= max(px):
        return f"{n - 1} lines of the same words would be no wider"
    times = max(px) / spans.least_px[n]
    if times > UNEVEN:
        return f"the widest line is {times:.1f} times as wide as it needs to be"
    if min(px) < SHORT * max(px) and spans.shortest_px(n, spans.most_px(n)):
        return f"line {px.index(min(px)) + 1} is short"
    return ""
