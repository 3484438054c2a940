"""The constant page: one picture of a benchmark's best words, with which a score that only asks
what is there can be gamed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from evals.readers import ReadLine
from evals.scoring import Benchmark, Case, Reading
from evals.typesetting import LEFT_OUT, TypesettingError, font_of, run_in, set_strings

CANDIDATES = 4  # so many times as many words as a page has are tried for it
CELL = {"en": 3, "zh": 8}  # characters: readers overlook single ones that stand alone
MAX_CELL = 24  # characters


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
    if len(passed) > LEFT_OUT * len(chosen):
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
    words: Sequence[str],
    *,
    size_px: tuple[int, int] = (1024, 1024),
    language: str = "en",
    font: Path | None = None,
) -> tuple[UInt8[np.ndarray, "Y X 3"], int]:
    """A page of words in rows, each far enough from the next to be read alone, and its type in
    pixels; it is larger than `size_px` (width, height) where that is too small to read."""
    return set_strings(_cells(words, language), size_px=size_px, font=font, layouts=(run_in,))
