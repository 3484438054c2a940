"""The constant page: one picture of a benchmark's best words, with which a score that only asks
what is there can be gamed.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from blueprint.typeset import load_font
from evals.readers import ReadLine
from evals.scoring import Benchmark, Case, Reading
from evals.typesetting import TypesettingError, font_of, largest

CANDIDATES = 4  # so many times as many words as a page has are tried for it
WORD_GAP = 2.0  # type sizes between cells: readers take words that far apart for lines of their own
WORD_PITCH = 1.3  # type sizes from line to line
CELL = {"en": 3, "zh": 8}  # characters: readers overlook single ones that stand alone
PASSED_OVER = 0.05  # of a page's words may be left out for want of a glyph
MAX_CELL = 24  # characters
MIN_WORD_PX = 20  # of type; a page that has smaller grows
MAX_PAGE_PX = 2000  # rapidocr makes larger pictures smaller


def perfect(words: Sequence[str]) -> Reading:
    """What a reader without fault reads where each word is a line of its own."""
    lines = [
        ReadLine(word, (0.0, 24.0 * i, 12.0 * len(word), 20.0), 1.0) for i, word in enumerate(words)
    ]
    return Reading(tuple(lines), (1024, 24 * max(len(words), 1)))


def _words(case: Case) -> list[str]:
    """The words of the targets as they are written."""
    if case.language == "zh":
        return [c for target in case.targets for c in target if not c.isspace()]
    return [word for target in case.targets for word in target.split()]


def _same(word: str) -> str:
    """What spellings that some metric might take for one word have in common."""
    return "".join(c for c in word.casefold() if c.isalnum()) or word


class _Gains:
    """What words add to the headline of a page that says nothing else."""

    def __init__(self, benchmark: Benchmark, cases: Sequence[Case]) -> None:
        (self._metric,) = (m for m in benchmark.metrics if m.name == benchmark.headline)
        self._sign = -1 if self._metric.lower_is_better else 1
        self._cases = cases
        self._rows = self._measured(range(len(cases)), [])
        self._total = self._rows.sum(axis=0)

    def _measured(self, places: Sequence[int], words: Sequence[str]) -> np.ndarray:
        reading = perfect(words)
        measure = self._metric.measure
        return np.array([measure(self._cases[i], reading) for i in places], np.float64)

    def of(self, places: Sequence[int], spellings: Counter[str]) -> list[tuple[float, str]]:
        """(gain, word) for each copy of a word, in its best spelling, until another adds nothing;
        only the cases at `places` ask for it."""
        rest = self._total - self._rows[places].sum(axis=0)
        before, page, found = self._value(self._total), [], []
        while True:
            values = {
                word: self._value(rest + self._measured(places, [*page, word]).sum(axis=0))
                for word in spellings
            }
            best = max(values, key=lambda word: (values[word], spellings[word]))
            gain = values[best] - before
            if page and gain <= 1e-12:
                return found
            found.append((gain, best))
            before, page = values[best], [*page, best]

    def _value(self, sums: np.ndarray) -> float:
        return self._sign * float(np.nan_to_num(self._metric.value(sums)))


def best_words(
    benchmark: Benchmark, cases: Sequence[Case], num_words: int, *, font: Path | None = None
) -> list[str]:
    """The words, repeated ones among them, of the constant page that scores highest, best first: as
    the benchmark's headline counts words, each by what it adds alone.

    Where the headline says nothing of single words, as when pictures are read in crops, the most
    frequent. Words that no font can set are passed over; raises `TypesettingError` when that would
    make another page of it.
    """
    spellings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    places: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for i, case in enumerate(cases):
        for word in _words(case):
            spellings[_same(word)][word] += 1
            places[_same(word)][i] = None
    counts = {same: words.total() for same, words in spellings.items()}
    tried = sorted(counts, key=lambda same: -counts[same])[: CANDIDATES * num_words]
    gains = None if benchmark.crops else _Gains(benchmark, cases)
    ranked: list[tuple[float, int, str]] = []
    for same in tried:
        of = gains.of(list(places[same]), spellings[same]) if gains else [(0.0, "")]
        frequent = spellings[same].most_common(1)[0][0]
        ranked += [(-gain, -counts[same], word or frequent) for gain, word in of]
    ranked.sort(key=lambda row: row[:2])
    return _settable([word for *_, word in ranked], num_words, font)


def _settable(words: Sequence[str], num_words: int, font: Path | None) -> list[str]:
    """The first so many words that can be set."""
    chosen: list[str] = []
    passed: list[TypesettingError] = []
    for word in words:
        try:
            font_of(word, font)
        except TypesettingError as error:
            passed.append(error)
        else:
            chosen.append(word)
        if len(chosen) == num_words:
            break
    if len(passed) > PASSED_OVER * len(chosen):
        raise TypesettingError(f"{len(passed)} of the best words cannot be set: {passed[0]}")
    return chosen


def _cells(words: Sequence[str], language: str) -> list[str]:
    """Words, the short ones beside others, so that a reader overlooks none."""
    if language == "zh":
        return ["".join(words[i : i + CELL["zh"]]) for i in range(0, len(words), CELL["zh"])]
    cells: list[str] = []
    for word in words:
        short = bool(cells) and min(len(word), len(cells[-1].split()[-1])) < CELL["en"]
        if short and len(cells[-1]) + len(word) < MAX_CELL:
            cells[-1] += f" {word}"
        else:
            cells.append(word)
    return cells


def words_page(
    words: Sequence[str], *, side_px: int = 1024, language: str = "en", font: Path | None = None
) -> tuple[UInt8[np.ndarray, "Y X 3"], int]:
    """A square page of words in rows, each far enough from the next to be read alone, and its type
    in pixels: the largest that fits `side_px`, or a larger page where that is too small to read."""
    cells = [(cell, font_of(cell, font)) for cell in _cells(words, language)]
    side, type_px = _sizes(cells, side_px)
    margin = _margin(side)
    page = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(page)
    for i, row in enumerate(_rows(cells, type_px, room_px=side - 2 * margin) or ()):
        for left, cell, path in row:
            at = (margin + left, margin + round((i * WORD_PITCH + 1) * type_px))
            draw.text(at, cell, "black", load_font(path, type_px), anchor="ls")
    return np.asarray(page), type_px


def _margin(side_px: int) -> int:
    return round(0.03 * side_px)


def _sizes(cells: Sequence[tuple[str, Path]], side_px: int) -> tuple[int, int]:
    """(side, type) in pixels of the smallest page, from `side_px` on, in large enough type; of the
    largest page if there is none."""
    side, type_px = side_px, 0
    for side in sorted({side_px, *(s for s in (1536, MAX_PAGE_PX) if s > side_px)}):
        fits = functools.partial(_rows, cells, room_px=side - 2 * _margin(side))
        type_px = largest(fits, 1, side // 16)
        if type_px >= MIN_WORD_PX:
            break
    return side, type_px


def _rows(
    cells: Sequence[tuple[str, Path]], type_px: int, *, room_px: int
) -> list[list[tuple[float, str, Path]]] | None:
    """The cells in rows, each with its left edge; None when they are too many or one too long."""
    rows: list[list[tuple[float, str, Path]]] = [[]]
    left = 0.0
    for cell, path in cells:
        length = load_font(path, type_px).getlength(cell)
        if length > room_px:
            return None
        if rows[-1] and left + length > room_px:
            rows.append([])
            left = 0.0
        rows[-1].append((left, cell, path))
        left += length + WORD_GAP * type_px
    return rows if len(rows) * WORD_PITCH * type_px <= room_px else None
