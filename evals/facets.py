"""What is known of every target word, so that lost words can be sorted by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from blueprint.schema import Blueprint, Text
from blueprint.typeset import CANONICAL_FACES, Face, size_px
from evals.metrics.words import words_of
from evals.scoring import Case

WORDS = (1, 4, 8, 16, 32, 64, 128)  # on a page
LINES = (1, 2, 3, 4, 7)  # of a text
TYPE_PX = (1, 8, 10, 12, 14, 16, 20, 24, 32, 48)
CHAR_PX = (1, 3, 4, 5, 6, 7, 8, 10, 14, 20)


@dataclasses.dataclass(frozen=True)
class Word:
    """One target word.

    `type_px` is its em square, which a planner chooses; `char_px` is how many pixels wide a
    character of its line is on average, which the typeface decides as well. Both are 0 where
    nothing says how the word is set. `facets` maps a facet to the word's value.
    """

    string: str
    facets: Mapping[str, str]
    type_px: int = 0
    char_px: float = 0.0


def bucket(n: float, edges: Sequence[int]) -> str:
    """The name of the bucket that a number falls into: `08-15`, `07` or, the last one, `16+`; its
    ends are whole numbers and included, of 15.9 the 15 counts. Names sort as the numbers do."""
    digits = len(str(edges[-1]))
    place = max(sum(n >= edge for edge in edges) - 1, 0)
    low = f"{edges[place]:0{digits}d}"
    if place + 1 == len(edges):
        return f"{low}+"
    high = edges[place + 1] - 1
    return low if high == edges[place] else f"{low}-{high:0{digits}d}"


def char_px(line: str, text: Text, size: int, face: Face | None = None) -> float:
    """How wide a line's characters are on average, blanks included, in the canonical face if no
    other is given."""
    font = (face or CANONICAL_FACES[text.font]).font(text.weight, size)
    return font.getlength(line) / len(line)


def placed_words(
    blueprint: Blueprint, faces: Mapping[str, Face] | None = None
) -> list[tuple[Text, Word]]:
    """Every word of a page in reading order with its text; its facets are those that a blueprint
    tells. `faces` are the typefaces by class that the page is painted with."""
    found = []
    num_words = bucket(len(blueprint.words), WORDS)
    for text in blueprint.texts:
        size = size_px(text, blueprint.height_px)
        face = faces[text.font] if faces else None
        for line in text.lines:
            wide = char_px(line, text, size, face)
            facets = {
                "words": num_words, "lines": bucket(len(text.lines), LINES), "kind": text.kind,
                "font": text.font, "type_px": bucket(size, TYPE_PX),
                "char_px": bucket(wide, CHAR_PX),
            }  # fmt: skip
            found += [(text, Word(word, facets, size, wide)) for word in line.split()]
    return found


def target_words(case: Case) -> tuple[Word, ...]:
    """The words of a case of any benchmark (`metrics.words.words_of`: in zh its characters, and so
    what was read has to be split) in the order of its targets, with the case's groups as facets
    and, if it has a blueprint of just these words, with what that tells. A case that knows more of
    them itself, as `benchmarks.pages.PageCase` does, has `words`."""
    if (own := getattr(case, "words", None)) is not None:
        return own
    groups = dict(case.groups)
    plain = words_of(case.targets, case.language)
    if case.blueprint is None or words_of(case.blueprint.words, case.language) != plain:
        return tuple(Word(word, groups) for word in plain)
    return tuple(
        dataclasses.replace(word, facets={**groups, **word.facets})
        for _, word in placed_words(case.blueprint)
    )
