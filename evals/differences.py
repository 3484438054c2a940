"""What was read beside what was asked for, character by character, for people to look at.

Scores are computed elsewhere. Here each read word is laid to the target that it resembles, whatever
the reading order, so that one missing line does not strike out all lines behind it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from rapidfuzz.distance import Levenshtein
from scipy.optimize import linear_sum_assignment

from evals.metrics.matching import MISSPELT, edit_costs
from evals.metrics.words import normalise, num_shared, words_of


@dataclasses.dataclass(frozen=True)
class Mark:
    """A run of characters: `same` in both, `lost` (asked for, not read), `extra` (read, not asked
    for) or `swapped`, where `text` was asked for and `read` stands in its place."""

    kind: Literal["same", "lost", "extra", "swapped"]
    text: str
    read: str = ""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Each target's marks, the words read that belong to none of them, and how many of the targets'
    words (in zh, characters) were read exactly."""

    targets: tuple[tuple[Mark, ...], ...]
    extra: tuple[str, ...]
    num_hits: int
    num_words: int

    @property
    def num_lost(self) -> int:
        """Words that were not read exactly."""
        return self.num_words - self.num_hits


def marks(target: str, read: str) -> tuple[Mark, ...]:
    """The fewest edits from a target to what was read, as runs in the target's order.

    Of a run that is replaced by a longer or shorter one, characters are swapped in pairs and the
    rest is extra or lost.
    """
    found = []
    for edit in Levenshtein.opcodes(target, read):
        old, new = target[edit.src_start : edit.src_end], read[edit.dest_start : edit.dest_end]
        match edit.tag:
            case "equal":
                found.append(Mark("same", old))
            case "delete":
                found.append(Mark("lost", old))
            case "insert":
                found.append(Mark("extra", new))
            case "replace":
                found.append(Mark("swapped", old, new))
    return tuple(found)


def counts(
    targets: Sequence[str], read: Sequence[str], *, language: str = "en"
) -> tuple[int, int, int]:
    """(words read exactly, words asked for, words read); in zh of characters."""
    wanted, found = (words_of(strings, language) for strings in (targets, read))
    return num_shared(wanted, found), len(wanted), len(found)


def difference(targets: Sequence[str], read: Sequence[str], *, language: str = "en") -> Difference:
    """Lay read strings to targets and mark what differs, after `words.normalise`.

    In en the strings are taken apart into words, in zh a target is laid to whole lines.
    """
    glue = "" if language == "zh" else " "
    wanted = [normalise(target) for target in targets]
    pieces = [normalise(string) for string in read]
    parts = [[string] if language == "zh" else string.split() for string in wanted]
    if language != "zh":
        pieces = [word for string in pieces for word in string.split()]
    owner = _owners(parts, pieces)
    for place in range(len(pieces)):
        if owner[place] is None:
            owner[place] = _nearer(wanted, pieces, owner, place, glue)
    laid = [
        glue.join(p for p, o in zip(pieces, owner, strict=True) if o == i)
        for i in range(len(wanted))
    ]
    num_hits, num_words, _ = counts(targets, read, language=language)
    return Difference(
        tuple(marks(target, found) for target, found in zip(wanted, laid, strict=True)),
        tuple(p for p, o in zip(pieces, owner, strict=True) if o is None and p),
        num_hits,
        num_words,
    )


def _owners(parts: Sequence[Sequence[str]], pieces: Sequence[str]) -> list[int | None]:
    """For each read piece the target that it is a word of: targets read as one run take theirs
    first, the longest before others; then words are paired, misspelt at most, with the fewest edits
    together."""
    owner: list[int | None] = [None] * len(pieces)
    left = []
    for i in sorted(range(len(parts)), key=lambda i: -len(parts[i])):
        size = len(parts[i])
        starts = range(len(pieces) - size + 1) if size else ()
        free = (at for at in starts if owner[at : at + size] == [None] * size)
        run = next((at for at in free if list(pieces[at : at + size]) == list(parts[i])), None)
        if run is None:
            left.append(i)
        else:
            owner[run : run + size] = [i] * size
    words = [(word, i) for i in sorted(left) for word in parts[i]]
    rest = [place for place, mine in enumerate(owner) if mine is None]
    if not words or not rest:
        return owner
    texts = [word for word, _ in words], [pieces[place] for place in rest]
    costs = edit_costs(*texts)
    costs = np.where(costs <= MISSPELT, costs, 2.0)  # rather two good pairs than one and a bad one
    # Of equal words those at like places on the page belong together.
    away = np.linspace(0, 1, len(words))[:, None] - np.linspace(0, 1, len(rest))
    costs += 1e-3 * np.abs(away)
    for row, column in zip(*linear_sum_assignment(costs), strict=True):
        if costs[row, column] < 1:
            owner[rest[column]] = words[row][1]
    return owner


def _nearer(
    wanted: Sequence[str], pieces: Sequence[str], owner: Sequence[int | None], place: int, glue: str
) -> int | None:
    """The target that a piece without one brings nearest to what it asks for, by more than half of
    its characters, as the second half of a word read in two does; None if there is none."""
    best, most = None, len(pieces[place]) / 2
    if len(pieces[place]) < 2 and glue:  # a lone letter occurs in every target
        return None
    for i, target in enumerate(wanted):
        before = [j for j in range(len(pieces)) if owner[j] == i]
        after = sorted([*before, place])
        old, new = (glue.join(pieces[j] for j in places) for places in (before, after))
        nearer = Levenshtein.distance(target, old) - Levenshtein.distance(target, new)
        if nearer > most:
            best, most = i, nearer
    return best
