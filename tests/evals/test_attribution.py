"""Every lost word has one name, however the words are sorted; and what is known of a word is what
the page says."""

import random

import pytest

from blueprint.schema import Blueprint, Box, Text
from evals.attribution import CELLS, STAGES, attribution
from evals.facets import LINES, TYPE_PX, WORDS, Word, bucket, char_px, target_words
from evals.scoring import Case

PAGE = Blueprint(
    128, 128, "#fff",
    (
        Text("title", ("Big", "Day"), Box(0, 0, 900, 400), "serif", "bold", 156),
        Text("price", ("$5",), Box(0, 500, 900, 200), size_milli=94),
    ),
)  # fmt: skip


def stages(*reads):
    return {
        stage: [[string] for string in pages] for stage, pages in zip(STAGES, reads, strict=True)
    }


def test_each_word_is_in_the_cell_of_the_first_stage_that_lost_it():
    words = [[Word(w, {"size": s}) for w, s in zip("abcde", "lllss", strict=True)]]
    reads = stages(["a b c d"], ["a b c"], ["a b e"], ["a e"])
    found = attribution(words, reads)
    assert found["total"] == {"reader": 1, "tokenizer": 1, "decoder": 1, "planner": 1, "read": 1}
    large, small = found["by"]["size"]["l"], found["by"]["size"]["s"]
    assert large == {"reader": 0, "tokenizer": 0, "decoder": 1, "planner": 1, "read": 1}
    assert small == {"reader": 1, "tokenizer": 1, "decoder": 0, "planner": 0, "read": 0}
    assert found["recovered"] == {"reader": 1, "tokenizer": 0, "decoder": 0}  # e came back


def test_all_tables_add_up_to_the_target_words():
    rng = random.Random(0)
    words = [
        [Word(rng.choice("abcdef"), {"x": rng.choice("12"), "y": rng.choice("345")})
         for _ in range(rng.randint(0, 8))]
        for _ in range(30)
    ]  # fmt: skip
    reads = {
        stage: [[w.string for w in page if rng.random() < 0.7] for page in words]
        for stage in STAGES
    }
    found, count = attribution(words, reads), sum(map(len, words))
    assert tuple(found["total"]) == CELLS and sum(found["total"].values()) == count
    for table in found["by"].values():
        assert sum(sum(row.values()) for row in table.values()) == count
        for cell in CELLS:
            assert sum(row[cell] for row in table.values()) == found["total"][cell]
    assert all(found["recovered"][who] <= found["total"][who] for who in found["recovered"])


def test_a_stage_that_was_not_read_loses_nothing():
    reads = {"end_to_end": [["a"]], "typeset": [["a b"]]}
    found = attribution([[Word(w, {}) for w in "abc"]], reads)
    assert found["total"] == {"reader": 1, "tokenizer": 0, "decoder": 0, "planner": 1, "read": 1}


def test_bad_stages_are_named():
    words = [[Word("a", {})]]
    with pytest.raises(ValueError, match="no stage is called printed"):
        attribution(words, {"printed": [["a"]]})
    with pytest.raises(ValueError, match="typeset was read on 2 pages of 1"):
        attribution(words, {"typeset": [["a"], ["b"]]})
    with pytest.raises(ValueError, match="no stage was read"):
        attribution(words, {})


def test_numbers_fall_into_named_buckets_that_sort_as_they_do():
    assert [bucket(n, WORDS) for n in (1, 3, 4, 200)] == ["001-003", "001-003", "004-007", "128+"]
    assert [bucket(n, LINES) for n in (1, 6, 7)] == ["1", "4-6", "7+"]
    assert bucket(15.9, TYPE_PX) == "14-15" and bucket(0.5, TYPE_PX) == "01-07"
    names = [bucket(n, TYPE_PX) for n in range(1, 60)]
    assert names == sorted(names)


def test_words_know_how_they_are_set():
    case = Case("one", "a page", ("Big Day", "$5"), groups={"style": "plain"}, blueprint=PAGE)
    big, day, price = target_words(case)
    assert [w.string for w in (big, day, price)] == ["Big", "Day", "$5"]
    assert big.type_px == day.type_px == 20 and price.type_px == 12
    assert big.char_px == char_px("Big", PAGE.elements[0], 20) > price.char_px
    assert dict(big.facets) == {
        "style": "plain", "words": "001-003", "lines": "2", "kind": "title", "font": "serif",
        "type_px": "20-23", "char_px": bucket(big.char_px, (1, 3, 4, 5, 6, 7, 8, 10, 14, 20)),
    }  # fmt: skip
    other = Case("two", "a page", ("Big Day",), groups={"style": "plain"}, blueprint=PAGE)
    assert target_words(other) == tuple(Word(w, {"style": "plain"}) for w in ("Big", "Day"))
    chinese = Case("three", "", ("你好",), language="zh")
    assert [w.string for w in target_words(chinese)] == ["你", "好"]
