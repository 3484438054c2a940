"""Our own scores: case, punctuation, order and what nobody asked for all count.

Strings are compared after `words.normalise` (NFKC; blanks, dashes and quotes folded). A word is
what stands between blanks or, in zh, a character. Pictures that were read in crops alone are read
in the targets' order. Unless said otherwise a score is of all pictures together, as in a share of
all their words.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from rapidfuzz.distance import LCSseq, Levenshtein
from scipy.optimize import linear_sum_assignment

from evals.metrics.elements import ReadPage, crop_pairs, found_elements, read_page, strings_of
from evals.metrics.matching import MISSPELT, edit_costs
from evals.metrics.words import num_shared, words_of
from evals.readers import ReadLine
from evals.scoring import Case, Metric, Reading, Statistics, share

NOWHERE = (0.0, 0.0, 0.0, 0.0)


def _words(case: Case, reading: Reading) -> tuple[list[str], list[str]]:
    wanted = words_of(case.targets, case.language)
    return wanted, words_of(strings_of(reading), case.language)


def _texts(case: Case, reading: Reading) -> tuple[str, str]:
    joint = "" if case.language == "zh" else " "
    wanted, read = _words(case, reading)
    return joint.join(wanted), joint.join(read)


def exact_elements(case: Case, reading: Reading, *, folded: bool) -> tuple[float, float]:
    """(elements read exactly, elements); with `folded` without the stops that end an element.

    An element is one target that has words. It is read when a run of read words says its words,
    all of them in their order. A run may begin and end within a line, goes on over lines as
    `elements.ReadPage` says, and shares no word with the run of another element, of which the
    longest choose first. Where it stands does not matter here: `layout.py` measures that. In
    crops, an element is to be read in its own.
    """
    find = functools.partial(found_elements, language=case.language, folded=folded)
    if not reading.crops:
        found = find(case.targets, read_page(reading.lines, case.language))
    else:
        found = []
        for target, crop in crop_pairs(case, reading):
            line = ReadLine(crop, NOWHERE, 1.0)
            found += find([target], ReadPage([line], case.language))
    return sum(found), len(found)


def word_counts(case: Case, reading: Reading) -> tuple[float, float, float, float]:
    """(words both asked for and read, words asked for, words read, pictures), as multisets."""
    wanted, read = _words(case, reading)
    return num_shared(wanted, read), len(wanted), len(read), 1.0


def _of(part: int, whole: int) -> Callable[[Statistics], Float[np.ndarray, ...]]:
    """One statistic over another, and 0 for pictures, counted by the last, on which the second is
    0."""

    def value(sums: Statistics) -> Float[np.ndarray, ...]:
        shares = sums[..., part] / np.where(sums[..., whole] > 0, sums[..., whole], 1)
        return np.where(sums[..., -1] > 0, shares, np.nan)

    return value


def _f1(sums: Statistics) -> Float[np.ndarray, ...]:
    return share(np.stack([2 * sums[..., 0], sums[..., 1] + sums[..., 2]], axis=-1))


def extra_text(case: Case, reading: Reading) -> tuple[float, float, float]:
    """(characters read that nothing asked for, characters read, pictures), blanks aside.

    Words that were asked for and not read excuse one read word each whose edit distance to them is
    at most `MISSPELT` of the longer length, as many as can be: these are misspelt, not extra. In
    zh they excuse any.
    """
    wanted, read = (Counter(words) for words in _words(case, reading))
    missing, extra = list((wanted - read).elements()), list((read - wanted).elements())
    num_characters = sum(len(word) * count for word, count in read.items())
    if case.language == "zh":
        return max(len(extra) - len(missing), 0), num_characters, 1.0
    costs = edit_costs(missing, extra)
    costs = np.where(costs <= MISSPELT, costs, 1.0)
    rows, columns = linear_sum_assignment(costs)
    excused = set(columns[costs[rows, columns] < 1].tolist())
    num_extra = sum(len(word) for i, word in enumerate(extra) if i not in excused)
    return num_extra, num_characters, 1.0


def whole_text(case: Case, reading: Reading) -> tuple[float, float]:
    """(1 - edit distance over the longer length, pictures), of all that was asked for and all that
    was read, each in reading order; 1 for two empty texts."""
    return Levenshtein.normalized_similarity(*_texts(case, reading)), 1.0


def character_errors(case: Case, reading: Reading) -> tuple[float, float]:
    """(edits, characters asked for) of the whole texts, in which words are one blank apart."""
    wanted, read = _texts(case, reading)
    return Levenshtein.distance(wanted, read), len(wanted)


def order(case: Case, reading: Reading) -> tuple[float, float]:
    """(steps from word to word that keep the order asked for, steps): those of the longest common
    subsequence of words, and those that the words in common could have had.

    The subsequence is the most words that stand in order, however repeated words are told apart;
    one element in a wrong place costs only its own words, where pairs (Kendall's tau) would weigh
    a long page by its square. A picture with fewer than two words in common says nothing; one that
    is read backwards scores 0.
    """
    wanted, read = _words(case, reading)
    common = num_shared(wanted, read)
    if common < 2:
        return 0.0, 0.0
    return LCSseq.similarity(wanted, read) - 1, common - 1


def _metric(
    name: str,
    measure: Callable[[Case, Reading], Sequence[float]],
    said: str,
    *,
    value: Callable[[Statistics], Float[np.ndarray, ...]] = share,
    lower_is_better: bool = False,
) -> Metric:
    return Metric(name, measure, value, f"Letterpress: {said}", lower_is_better)


STRICT: tuple[Metric, ...] = (
    _metric(
        "word_f1",
        word_counts,
        "harmonic mean of exact_word_accuracy and word_precision over all words",
        value=_f1,
    ),
    _metric(
        "exact_word_accuracy",
        word_counts,
        "words both asked for and read over words asked for, as multisets, case kept; forgives "
        "what nobody asked for, so that a page of all words scores 1",
    ),
    _metric(
        "word_precision",
        word_counts,
        "words both asked for and read over words read; 0 where nothing was read",
        value=_of(0, 2),
    ),
    _metric(
        "exact_element_accuracy",
        functools.partial(exact_elements, folded=False),
        "elements (one target each) that a run of read words says exactly, over elements",
    ),
    _metric(
        "exact_element_accuracy_unpunctuated",
        functools.partial(exact_elements, folded=True),
        "the same without the stops that end an element",
    ),
    _metric(
        "extra_text_rate",
        extra_text,
        "characters of read words that are neither asked for nor such a word misspelt, over "
        "characters read; 0 where nothing was read",
        value=_of(0, 1),
        lower_is_better=True,
    ),
    _metric(
        "ned",
        whole_text,
        "1 - edit distance over the longer length of whole texts in reading order, averaged over "
        "pictures",
    ),
    _metric(
        "character_error_rate",
        character_errors,
        "edits of whole texts in reading order over characters asked for; may pass 1",
        lower_is_better=True,
    ),
    _metric(
        "reading_order",
        order,
        "longest common subsequence of words over words in common, each less 1",
    ),
)
