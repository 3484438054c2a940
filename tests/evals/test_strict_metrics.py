"""Our own scores of words by hand: which run of read words is an element, and what is extra."""

import time

import numpy as np
import pytest

from evals.metrics.elements import ReadPage, found_elements
from evals.metrics.strict import STRICT
from evals.metrics.words import normalise, words_of
from evals.readers import ReadLine
from evals.scoring import Case, Reading

OURS = {metric.name: metric for metric in STRICT}


def case_of(*targets, language="en"):
    return Case("case", "", targets, language=language)


def placed(*lines):
    """A reading of (string, left, top, width) lines, 10 px high, on a page of 100 px."""
    rows = [ReadLine(s, (float(x), float(y), float(w), 10.0), 1.0) for s, x, y, w in lines]
    return Reading(tuple(rows), (100, 100))


def below(*strings):
    return placed(*((s, 0, 12 * i, 80) for i, s in enumerate(strings)))


def scored(name, *pictures):
    metric = OURS[name]
    return float(metric.value(np.sum([metric.measure(*pair) for pair in pictures], axis=0)))


def found(targets, reading, **options):
    return found_elements(targets, ReadPage(reading.lines), **options)


def test_blanks_dashes_and_quotes_are_folded():
    assert normalise("“a” – b’s ‐ ―\u3000！") == '"a" - b\'s - - !'
    assert words_of(["a  b", " c"]) == ["a", "b", "c"] and words_of(["好 Aa"], "zh") == [*"好Aa"]
    assert found(["“Don’t” – stop"], below('"Don\'t" - stop')) == [True]


def test_an_element_runs_over_lines_and_within_them():
    assert found(["Big Summer Sale"], below("The Big", "Summer", "Sale today")) == [True]
    assert found(["Big Summer Sale"], below("Big", "Sale", "Summer")) == [False]
    assert found(["Big Sale"], below("Big and Sale")) == [False]
    assert found(["Big Sale"], below("big Sale")) == [False]


def test_columns_do_not_interrupt_each_other():
    rows = [("Free shipping", 0, 0, 40), ("Open every", 50, 1, 40)]
    rows += [("on all", 0, 12, 30), ("day until", 50, 13, 40)]
    rows += [("orders", 0, 24, 30), ("midnight", 50, 25, 40)]
    elements = ["Free shipping on all orders", "Open every day until midnight"]
    assert found(elements, placed(*rows)) == [True, True]
    assert found(["Free shipping day until orders"], placed(*rows)) == [False]


def test_a_line_read_in_pieces_is_one():
    pieces = placed(("Sale", 50, 0, 30), ("Big", 0, 3, 30), ("of shoes", 10, 15, 60))
    assert found(["Big Sale of shoes"], pieces) == [True]
    assert found(["Sale Big shoes"], pieces) == [False]


def test_a_read_word_serves_one_element_and_long_ones_choose_first():
    assert found(["Sale", "Sale"], below("Sale")) == [True, False]
    assert found(["Sale", "Big Sale"], below("Big Sale")) == [False, True]
    assert found(["Sale", "Big Sale"], below("Big Sale", "Sale")) == [True, True]
    assert found(["Sale", " "], below("Sale")) == [True]  # a target without words asks for nothing


def test_stops_at_the_end_can_be_folded():
    targets = ["Fresh brews!", "Open", "50%"]
    read = below("Fresh brews", "Open.", "50")
    assert found(targets, read) == [False, False, False]
    assert found(targets, read, folded=True) == [True, True, False]
    assert found(["a. b"], below("a b"), folded=True) == [False]  # not within
    assert found(["!"], below("!"), folded=True) == [True]
    pictures = (case_of(*targets), read), (case_of("50"), read)
    assert scored("exact_element_accuracy", *pictures) == 1 / 4
    assert scored("exact_element_accuracy_unpunctuated", *pictures) == 3 / 4


def test_in_chinese_every_character_is_a_word():
    case = case_of("欢迎光临", "营业中。", language="zh")
    read = below("欢迎", "光 临", "营业 中")
    assert scored("exact_element_accuracy", (case, read)) == 0.5
    assert scored("exact_element_accuracy_unpunctuated", (case, read)) == 1
    assert scored("exact_word_accuracy", (case, read)) == 7 / 8
    assert scored("character_error_rate", (case, read)) == 1 / 8
    wrong = below("欢迎光店", "营业中。很好")  # a character for another, and two that are extra
    assert scored("extra_text_rate", (case, wrong)) == 2 / 10


def test_in_crops_an_element_is_read_in_its_own():
    case = Case("case", "", ("Big Sale", "now"), quads=(((0, 0), (1, 0), (1, 1), (0, 1)),) * 2)
    right = Reading((), (100, 100), crops=("Big Sale", "now"))
    swapped = Reading((), (100, 100), crops=("now", "Big Sale"))
    assert scored("exact_element_accuracy", (case, right)) == 1
    assert scored("exact_element_accuracy", (case, swapped)) == 0
    assert scored("exact_word_accuracy", (case, swapped)) == 1
    with pytest.raises(ValueError, match="1 crops"):
        OURS["exact_element_accuracy"].measure(case, Reading((), (9, 9), crops=("Big Sale",)))


def test_a_page_of_one_word_is_searched_in_no_time():
    grid = placed(*(("ha", 10 * (i % 3), 12 * (i // 3), 8) for i in range(90)))
    begun = time.monotonic()
    assert found(["ha " * 60 + "hi", "ha " * 60], grid) == [False, True]
    assert time.monotonic() - begun < 2


def test_words_are_shared_as_multisets():
    picture = case_of("Big big Sale"), below("Big Sale Sale X")
    assert scored("exact_word_accuracy", picture) == 2 / 3
    assert scored("word_precision", picture) == 2 / 4
    assert scored("word_f1", picture) == pytest.approx(4 / 7)
    blank = case_of("Big"), below()
    assert scored("word_precision", blank) == scored("extra_text_rate", blank) == 0
    assert scored("word_f1", blank) == scored("exact_word_accuracy", blank) == 0
    assert scored("exact_word_accuracy", picture, blank) == 2 / 4


def test_misspelt_words_are_not_extra():
    read = below("Hallo world", "Lorem ip")  # 17 characters; Hallo is Hello, Lorem is not
    assert scored("extra_text_rate", (case_of("Hello world"), read)) == 7 / 17
    assert scored("extra_text_rate", (case_of("Hello world", "Hullo"), read)) == 7 / 17
    assert scored("extra_text_rate", (case_of("Howdy"), below("Hours"))) == 1  # 3 of 5 edits
    assert scored("extra_text_rate", (case_of(), read)) == 1


def test_whole_texts_are_compared_in_order():
    picture = case_of("ab", "cd"), below("ab", "ce")
    assert scored("ned", picture) == pytest.approx(4 / 5)
    assert scored("character_error_rate", picture) == 1 / 5
    assert scored("character_error_rate", picture, (case_of("a"), below("aaaa"))) == 4 / 6
    assert scored("ned", picture, (case_of(), below())) == pytest.approx((4 / 5 + 1) / 2)


def test_reading_order_is_the_share_of_steps_kept():
    case = case_of("a b c d")
    assert scored("reading_order", (case, below("c d", "a b"))) == 1 / 3
    assert scored("reading_order", (case, below("d", "c", "b", "a"))) == 0
    assert scored("reading_order", (case, below("a x b", "y d"))) == 1
    assert scored("reading_order", (case_of("a b a"), below("a a b"))) == 1 / 2
    assert np.isnan(scored("reading_order", (case, below("a"))))
