"""What a score must be printed beside: pages that deserve nothing, our own typesetting, which no
reader should fail, and targets that do not belong.

A benchmark is worth its name only if it tells these apart. `controls` scores all of them by every
metric of any benchmark.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from evals.metrics.words import num_shared, words_of
from evals.pictures import MANIFEST, Read, as_reading
from evals.results import ControlNote
from evals.scoring import Benchmark, Case, Reading, Score, score, statistics
from evals.typesetting import TypesettingError, settable
from evals.typesetting import typeset as typeset_page
from evals.wordpage import best_words, perfect, words_page

Typeset = tuple[list[list[Reading]], tuple[str, ...]]  # readings of each case, and what failed


@dataclasses.dataclass(frozen=True)
class ControlSettings:
    """How controls are made. `num_words` has one constant page each. `num_typeset` of the cases,
    drawn by `seed`, are typeset, read and shuffled, None for all; `page` gives a case's picture
    where there is a better one than `typesetting.typeset` makes of its targets, and `font` is one
    with glyphs that ours lack."""

    num_words: tuple[int, ...] = (100, 500)
    num_typeset: int | None = None
    size_px: tuple[int, int] = (1024, 1024)
    seed: int = 0
    page: Callable[[Case], np.ndarray | None] | None = None
    font: Path | None = None
    num_resamples: int = 1000


@dataclasses.dataclass(frozen=True)
class Control:
    """The scores of a control over `num_cases`; `said` is what it is, `problems` what of it could
    not be set or read: it counts as nothing read."""

    scores: dict[str, Score]
    num_cases: int
    said: str
    problems: tuple[str, ...] = ()

    @property
    def note(self) -> ControlNote:
        """All but the scores, as results keep it."""
        return ControlNote(self.said, self.num_cases, self.problems)


def derangement(num_cases: int, seed: int) -> list[int]:
    """For each case another one, by one cycle through all of them in random order.

    Raises `ValueError` for fewer than two cases.
    """
    if num_cases < 2:
        raise ValueError("one case alone cannot be shuffled")
    order = np.random.default_rng(seed).permutation(num_cases)
    other = np.empty(num_cases, int)
    other[order] = np.roll(order, -1)
    return other.tolist()


def shuffled(
    cases: Sequence[Case], readings: Sequence[Sequence[Reading]], *, seed: int = 0
) -> list[list[Reading]]:
    """For each case the readings of another's pictures. What was read in crops is dealt to the
    case's quads, from the first again where there are more."""
    other = derangement(len(cases), seed)
    rows = []
    for case, place in zip(cases, other, strict=True):
        row = []
        for reading in readings[place]:
            if reading.crops:
                crops = tuple(itertools.islice(itertools.cycle(reading.crops), len(case.quads)))
                reading = dataclasses.replace(reading, crops=crops)
            row.append(reading)
        rows.append(row)
    return rows


def _pages(cases: Sequence[Case], settings: ControlSettings) -> list[Callable[[], np.ndarray]]:
    """What sets the typeset page of each case."""
    how = {"size_px": settings.size_px, "page": settings.page, "font": settings.font}
    return [functools.partial(typeset_page, case, **how) for case in cases]


def keep_typeset(cases: Sequence[Case], folder: Path, settings: ControlSettings) -> int:
    """Write the typeset pages into a folder that `pictures.gather` takes, a manifest among them,
    and say how many there are: a case that cannot be set has none."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for case, page in zip(cases, _pages(cases, settings), strict=True):
        with contextlib.suppress(TypesettingError):
            Image.fromarray(page()).save(folder / f"{case.name}.png")
            rows.append({"name": case.name, "file": f"{case.name}.png"})
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8")
    return len(rows)


def typeset_readings(
    benchmark: Benchmark, cases: Sequence[Case], read: Read, settings: ControlSettings
) -> Typeset:
    """What is read on the typeset page of each case, and what could not be set or read, which
    counts as nothing read.

    Raises `TypesettingError` when that is all of them.
    """
    pages = _pages(cases, settings)
    found = read(pages, quads=[case.quads for case in cases] if benchmark.crops else None)
    problems = tuple(picture.problem for picture in found if picture.problem)
    if len(problems) == len(cases):
        raise TypesettingError(f"no case could be typeset and read: {problems[0]}")
    pairs = zip(found, pages, strict=True)
    readings = [[as_reading(f, page, size_px=settings.size_px)] for f, page in pairs]
    left_out = [
        said
        for case in cases
        if (said := settable(case, settings.font)[1])
        and not (settings.page and settings.page(case) is not None)
    ]
    return readings, (*problems, *left_out)


class _Controls:
    """One benchmark's controls in the making."""

    def __init__(
        self, benchmark: Benchmark, cases: Sequence[Case], read: Read, settings: ControlSettings
    ) -> None:
        self._benchmark, self._read, self._settings = benchmark, read, settings
        self.cases = list(cases)
        drawn = np.random.default_rng(settings.seed).permutation(len(cases))
        drawn = drawn[: settings.num_typeset]
        self.drawn = [cases[i] for i in sorted(drawn)]

    def scored(
        self,
        cases: Sequence[Case],
        readings: Sequence[Sequence[Reading]],
        said: str,
        problems: tuple[str, ...] = (),
    ) -> Control:
        """A control of its readings."""
        scores = score(
            self._benchmark.metrics, cases, readings,
            num_resamples=self._settings.num_resamples, seed=self._settings.seed,
        )  # fmt: skip
        return Control(scores, len(cases), said, problems)

    def constant(self, picture: np.ndarray, said: str, words: Sequence[str] = ()) -> Control:
        """One picture for all cases, read once, or in the quads of those that are drawn; `words`
        are what it says."""
        crops = self._benchmark.crops
        cases = self.drawn if crops else self.cases
        if crops:
            found = self._read([picture] * len(cases), quads=[case.quads for case in cases])
        else:
            found = self._read([picture])
        size = (picture.shape[1], picture.shape[0])
        readings = [[as_reading(f, picture, size_px=size)] for f in found]
        problems = tuple(f.problem for f in found if f.problem)
        if not crops:
            readings = readings * len(cases)
            said += self._compared(words, readings[0][0]) if words else ""
        return self.scored(cases, readings, said, problems)

    def blank(self) -> Control:
        """White paper."""
        width, height = self._settings.size_px
        blank = np.full((height, width, 3), 255, np.uint8)
        return self.constant(blank, f"a white page of {width} x {height} px")

    def words(self, num_words: int) -> Control:
        """One page of the best words."""
        settings, language = self._settings, self._language
        words = best_words(self._benchmark, self.cases, num_words, font=settings.font)
        picture, type_px = words_page(
            words, size_px=settings.size_px, language=language, font=settings.font
        )
        unit = "characters" if language == "zh" else "words"
        said = f"one page of the benchmark's best {len(words)} {unit}, in type of {type_px} px"
        return self.constant(picture, said, words)

    @property
    def _language(self) -> str:
        """That of most cases."""
        return Counter(case.language for case in self.cases).most_common(1)[0][0]

    def _compared(self, words: Sequence[str], reading: Reading) -> str:
        """How many of the words were read, and what they would be worth if all were."""
        wanted = words_of(words, self._language)
        read = words_of(reading.strings, self._language)
        (headline,) = (m for m in self._benchmark.metrics if m.name == self._benchmark.headline)
        rows = statistics(headline, self.cases, [[perfect(words)]] * len(self.cases))
        return (
            f"; {num_shared(wanted, read)} of {len(wanted)} were read, and all of them would give "
            f"{headline.name} {float(headline.value(rows.sum(axis=0))):.4f}"
        )


def controls(
    benchmark: Benchmark,
    cases: Sequence[Case],
    read: Read,
    settings: ControlSettings | None = None,
    *,
    readings: Sequence[Sequence[Reading]] | None = None,
    typeset: Typeset | None = None,
) -> dict[str, Control]:
    """`blank`, `constant_100` and so on, `typeset` and `shuffled`, each scored by all metrics of
    the benchmark.

    Shuffled are `readings`, those of a system's pictures of the cases, or without them those of the
    typeset pages; a single case is not shuffled. `typeset` has what `typeset_readings` found of all
    cases: then none is typeset again, nor left out. Raises `TypesettingError` when no page can be
    set.
    """
    settings = settings or ControlSettings()
    making = _Controls(benchmark, cases, read, settings)
    found = {"blank": making.blank()}
    for num_words in settings.num_words:
        found[f"constant_{num_words}"] = making.words(num_words)
    drawn = making.drawn if typeset is None else making.cases
    set_, problems = typeset or typeset_readings(benchmark, drawn, read, settings)
    said = "the targets as we set them"
    if len(drawn) < len(cases):
        said += f", of {len(drawn)} of {len(cases)} cases (drawn by seed {settings.seed})"
    found["typeset"] = making.scored(drawn, set_, said, problems)
    own = readings is not None
    mixed, theirs = (making.cases, readings) if own else (drawn, set_)
    if len(mixed) > 1:
        said = f"{'pictures' if own else 'typeset pages'} against another case's targets"
        rows = shuffled(mixed, theirs, seed=settings.seed)
        found["shuffled"] = making.scored(mixed, rows, said)
    return found
