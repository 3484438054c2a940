"""Typesetting that can be read, controls that score what they should, and benchmarks that tell them
apart."""

import functools
import itertools

import numpy as np
import pytest

from evals import typesetting
from evals.benchmarks import BENCHMARKS
from evals.controls import (
    ControlSettings,
    controls,
    derangement,
    shuffled,
    typeset_readings,
)
from evals.metrics.published import (
    ANYTEXT_SENTENCE_ACCURACY,
    CVTG_WORD_ACCURACY,
    LEX_PNED,
    LONGTEXT_RECALL,
)
from evals.metrics.strict import STRICT
from evals.readers import RapidReader, ReadLine, ReadPicture, load, read_all
from evals.scoring import Benchmark, Case, Reading, score
from evals.typesetting import TypesettingError, chinese_font, typeset
from evals.wordpage import best_words, perfect, words_page
from tests.evals.tiny_benchmarks import make

SIZE_PX = (320, 320)
WORD_F1, EXACT_WORDS = STRICT[:2]


@pytest.fixture(scope="module")
def read():
    return functools.partial(read_all, RapidReader(num_threads=1), progress=False)


def bench(*metrics, crops=False):
    return Benchmark("tiny", lambda where: [], metrics, metrics[0].name, "", crops=crops)


def case(name, *targets, **more):
    return Case(name, "", targets, **more)


def value(metric, cases, words):
    readings = [[perfect(words)]] * len(cases)
    return score([metric], cases, readings, num_resamples=1)[metric.name].value


# The constant page.

PETS = [
    case("0", "The cat, the dog", "the End."),
    case("1", "the dog"),
    case("2", "A DOG", "cat"),
    case("3", "bird"),
]


@pytest.mark.parametrize(
    ("metric", "first", "worth"),
    [  # 12 words: the x4 (three in one case), dog x3, cat x2 (one with a comma), end, a, bird
        (LONGTEXT_RECALL, "dog", (3 + 2 + 2 + 1) / 12),
        (CVTG_WORD_ACCURACY, "the", (4 + 3 + 1 + 1) / 12),
        (EXACT_WORDS, "the", (2 + 2 + 1 + 1) / 12),
        (WORD_F1, "the", 2 * (2 + 2 + 1 + 1) / (12 + 4 * 4)),
    ],
)
def test_best_words_are_counted_as_the_headline_counts_them(metric, first, worth):
    found = best_words(bench(metric), PETS, 4)
    assert found[0] == first
    assert value(metric, PETS, found) == pytest.approx(worth)
    vocabulary = sorted({word for c in PETS for t in c.targets for word in t.split()})
    pages = itertools.combinations_with_replacement(vocabulary, 4)
    assert max(value(metric, PETS, page) for page in pages) == pytest.approx(worth)


def test_the_best_words_of_a_score_to_be_small_are_those_that_lower_it_most():
    cases = [case("0", "one two"), case("1", "two three"), case("2", "two")]
    found = best_words(bench(LEX_PNED), cases, 1)
    assert found == ["two"]
    assert value(LEX_PNED, cases, found) == pytest.approx((1 + 1 + 0) / 3)


def test_chinese_words_are_characters_and_crops_take_the_most_frequent():
    font = chinese_font() or typesetting.CANONICAL_FACES["sans"].regular
    numbers = [case(str(i), t, language="zh") for i, t in enumerate(("11 23", "123", "34"))]
    assert best_words(bench(LONGTEXT_RECALL), numbers, 4, font=font) == ["3", "1", "2", "1"]
    cropped = bench(ANYTEXT_SENTENCE_ACCURACY, crops=True)
    assert best_words(cropped, PETS, 2) == ["the", "dog"]


def test_a_constant_page_is_read_whole_and_scores_what_its_words_do(read):
    targets = [
        ("Fresh bread to go at 7", "Open daily"), ("I am the market", "the winter market"),
        ("Up & away: 24/7 by bus", "Bring a warm coat"), ("On sale", "Buy 2 of us, Get 1"),
    ]  # fmt: skip
    cases = [case(str(i), *several) for i, several in enumerate(targets)]
    words = best_words(bench(LONGTEXT_RECALL), cases, 24)
    picture, type_px = words_page(words, size_px=(512, 512))
    assert picture.shape == (512, 512, 3) and type_px >= 20
    (found,) = read([picture])
    reading = Reading(found.lines, found.size_px)
    rows = score([LONGTEXT_RECALL], cases, [[reading]] * 4, num_resamples=1)
    by_strings = value(LONGTEXT_RECALL, cases, words)
    assert 0.5 < by_strings < 1
    assert rows["longtext_recall"].value == pytest.approx(by_strings, abs=0.04)


def test_a_page_of_many_words_grows_until_its_type_is_large_enough():
    few, type_px = words_page(["word"] * 8)
    assert few.shape[:2] == (1024, 1024) and type_px > 60
    grown, type_px = words_page(["word"] * 40, size_px=(256, 128))
    assert grown.shape[:2] == (288, 576) and type_px >= 20
    most, type_px = words_page(["somewhat"] * 2000)
    assert most.shape[:2] == (2000, 2000) and 10 <= type_px < 20
    with pytest.raises(TypesettingError, match="5000 strings of 40000 characters do not fit"):
        words_page(["somewhat"] * 5000)


# Typesetting.


def ink(picture):
    rows, columns = np.nonzero((picture < 128).any(axis=-1))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_paragraphs_stand_within_the_margins_in_the_largest_type_that_fits():
    words = "Every morning the harbour wakes before its lamps are out"
    pairs = [(words, typesetting.font_of(words))] * 8
    for times in (4, 8):
        picture, type_px = typesetting.set_strings([words] * times, size_px=(600, 400))
        assert np.array_equal(picture, typeset(case("a", *[words] * times), size_px=(600, 400)))
        left, top, right, foot = ink(picture)
        assert picture.shape == (400, 600, 3)
        assert left >= 18 and top >= 18 and right < 582 and foot < 382
        assert typesetting.paragraphs(pairs[:times], type_px, (560, 360)) is not None
        assert typesetting.paragraphs(pairs[:times], type_px + 1, (560, 360)) is None
    assert typesetting.set_strings(["Tea"], size_px=(600, 400))[1] == 40
    with pytest.raises(
        TypesettingError, match=r"^b: 1 strings of \d+ characters do not fit a page"
    ):
        typeset(case("b", " ".join([words] * 900)), size_px=(600, 400))
    assert typeset(case("c"), size_px=(60, 40)).min() == 255


@pytest.mark.parametrize(
    ("string", "lines"),
    [
        ("one two  three", ["one", "two", "three"]),
        ("每日，新鲜！bread", ["每日，", "新鲜！", "bread"]),
        ("（上）午7点", ["（上", "）午", "7点"]),
    ],
)
def test_lines_break_at_blanks_and_before_chinese_characters_but_not_before_stops(string, lines):
    found = typesetting.pieces(string)
    rebuilt = "".join(" " * blank + piece for piece, blank in found)
    assert rebuilt == " ".join(string.split())
    assert all(piece[0] not in "，！）" for piece, _ in found)
    assert "".join(piece for piece, _ in found) == "".join(lines).replace(" ", "")


def test_lines_are_as_full_as_can_be():
    font = typesetting.font_of("a")
    length = typesetting.load_font(font, 20).getlength
    lines = typesetting.wrapped("aa bb cc dd ee", font, 20, length("aa bb cc"))
    assert lines == ["aa bb cc", "dd ee"]
    assert typesetting.wrapped("aa bbbbbbbb", font, 20, length("aaaa")) is None


def test_no_box_is_set_for_a_glyph_that_is_missing(monkeypatch, tmp_path):
    with pytest.raises(
        TypesettingError, match=r"^x: no font at hand has 𓀀 \(U\+13000 egyptian hieroglyph a001\): "
    ):
        typeset(case("x", "Snow 𓀀 here"))
    monkeypatch.setattr(typesetting, "chinese_font", lambda: None)
    with pytest.raises(TypesettingError, match=r"日 \(U\+65E5 .*pip install -e '.\[zh\]'"):
        typeset(case("x", "日 7"))
    with pytest.raises(TypesettingError, match=r"1 of the best words cannot be set: .*65E5"):
        best_words(bench(LONGTEXT_RECALL), [case("x", "日 7", language="zh")], 2)


@pytest.mark.skipif(chinese_font() is None, reason="the extra zh is not installed")
def test_chinese_is_set_and_read(read):
    (found,) = read([typeset(case("x", "每日新鲜，上午七点", language="zh"), size_px=(512, 256))])
    assert "".join(line.string for line in found.lines) == "每日新鲜，上午七点"


def test_targets_stand_in_their_quads_and_read_there(read):
    quads = (
        ((0.1, 0.1), (0.6, 0.1), (0.6, 0.25), (0.1, 0.25)),
        ((0.1, 0.5), (0.55, 0.35), (0.6, 0.5), (0.13, 0.66)),  # climbs, wider at its foot
        ((0.8, 0.1), (0.93, 0.1), (0.93, 0.9), (0.8, 0.9)),  # tall
    )
    targets = ("GRAND Opening", "Velvet Curtain", "Down here")
    placed = case("q", *targets, quads=quads)
    picture = typeset(placed, size_px=(512, 512))
    (found,) = read([picture], quads=[quads])
    assert found.crops == targets
    inside = np.zeros((512, 512), bool)
    for quad in quads:
        (left, top), (right, foot) = np.min(quad, axis=0) * 512, np.max(quad, axis=0) * 512
        inside[int(top) : int(foot) + 1, int(left) : int(right) + 1] = True
    assert picture[~inside].min() == 255
    flat = case("f", "no area", quads=(((0.1, 0.1), (0.5, 0.1), (0.9, 0.1), (0.3, 0.1)),))
    with pytest.raises(TypesettingError, match="'no area' has no area"):
        typeset(flat)


def test_a_cases_own_page_is_preferred():
    own = np.full((8, 8, 3), 7, np.uint8)
    assert typeset(case("x", "𓀀"), page=lambda c: own if c.name == "x" else None) is own


# Controls.


def numbered(cases):
    """Pages that say only which case they are, and what reads them."""
    places = {c.name: i + 1 for i, c in enumerate(cases)}

    def page(c):
        return np.full((4, 6, 3), places[c.name], np.uint8) if "𓀀" not in c.targets else None

    def read(pictures, *, quads=None):
        found = []
        for place, source in enumerate(pictures):
            try:
                picture = load(source)
            except ValueError as error:
                found.append(ReadPicture(problem=str(error)))
                continue
            grey = int(picture[0, 0, 0])
            said = cases[grey - 1].targets if grey < 255 else ()
            if quads is None:
                lines = (ReadLine(s, (0, 9.0 * i, 9, 9), 1.0) for i, s in enumerate(said))
                found.append(ReadPicture(tuple(lines), (6, 4)))
            else:
                strings = (*said, *[""] * 9)
                found.append(ReadPicture((), (6, 4), strings[: len(quads[place])]))
        return found

    return page, read


def test_controls_have_all_metrics_of_the_benchmark():
    cases = [case(str(i), f"word{i}", "same") for i in range(6)]
    page, read = numbered(cases)
    benchmark = bench(LONGTEXT_RECALL, *STRICT)
    settings = ControlSettings(num_words=(2,), num_typeset=4, page=page, num_resamples=10)
    found = controls(benchmark, cases, read, settings)
    assert list(found) == ["blank", "constant_2", "typeset", "shuffled"]
    assert all(list(c.scores) == [m.name for m in benchmark.metrics] for c in found.values())
    assert [c.num_cases for c in found.values()] == [6, 6, 4, 4]
    recall = {name: control.scores["longtext_recall"].value for name, control in found.items()}
    assert recall == {"blank": 0, "constant_2": 0, "typeset": 1, "shuffled": 0.5}
    assert "of 4 of 6 cases (drawn by seed 0)" in found["typeset"].said
    said = found["constant_2"].said  # the reader of numbers reads nothing else
    assert "best 2 words" in said and "0 of 2 were read" in said and "longtext_recall 0.58" in said
    own = [[perfect(["word0", "same"])] * 2 for _ in cases]
    other = controls(benchmark, cases, read, settings, readings=own)["shuffled"]
    assert other.num_cases == 6 and "pictures against" in other.said
    assert other.scores["longtext_recall"].value == pytest.approx(7 / 12)


def test_pages_that_are_typeset_already_are_not_typeset_again():
    cases = [case(str(i), f"word{i}", "same") for i in range(6)]
    page, read = numbered(cases)
    asked = []
    settings = ControlSettings(
        num_words=(), num_typeset=4, page=lambda c: asked.append(c.name) or page(c), num_resamples=9
    )
    readings, problems = typeset_readings(bench(EXACT_WORDS), cases, read, settings)
    assert problems == () and set(asked) == {c.name for c in cases}
    readings[2] = [perfect(["same"])]
    asked.clear()
    given = readings, ("2: a word fell off",)
    found = controls(bench(EXACT_WORDS), cases, read, settings, typeset=given)
    assert asked == []
    assert found["typeset"].num_cases == found["shuffled"].num_cases == 6
    assert found["typeset"].scores["exact_word_accuracy"].value == pytest.approx(11 / 12)
    assert found["typeset"].problems == given[1]
    assert found["typeset"].said == "the targets as we set them"
    assert found["shuffled"].scores["exact_word_accuracy"].value == 0.5


def test_a_few_characters_without_a_glyph_are_left_out_and_named():
    cases = [case("0", "𓀀 A winter market with a snowman"), case("1", "Hot tea")]
    whole = typeset(case("0", " A winter market with a snowman"), size_px=SIZE_PX)
    assert np.array_equal(typeset(cases[0], size_px=SIZE_PX), whole)

    def read(pictures, *, quads=None):
        for source in pictures:
            load(source)
        line = ReadLine("A winter market with a snowman", (0, 0, 9, 9), 1.0)
        return [ReadPicture((line,), SIZE_PX)] * len(pictures)

    settings = ControlSettings(num_words=(), size_px=SIZE_PX, num_resamples=2)
    found = controls(bench(EXACT_WORDS), cases, read, settings)["typeset"]
    said = "0: set without 𓀀 (U+13000 egyptian hieroglyph a001), which no font at hand has"
    assert found.problems == (said,)
    assert found.scores["exact_word_accuracy"].value == pytest.approx(6 / 9)


def test_a_crowded_page_grows_and_then_runs_its_targets_in():
    short = [f"item {i}" for i in range(12)]
    assert typeset(case("a", *short), size_px=SIZE_PX).shape == (720, 720, 3)
    crowded = [f"item {i}" for i in range(120)]
    page, type_px = typesetting.set_strings(crowded, size_px=SIZE_PX)
    assert type_px >= 20 and max(page.shape) <= 2000
    pairs = [(string, typesetting.font_of(string)) for string in crowded]
    room = (page.shape[1] * 0.9, page.shape[0] * 0.9)
    assert typesetting.paragraphs(pairs, type_px, room) is None
    lines = typesetting.run_in(pairs, type_px, room)
    assert [line.string for line in lines] == crowded
    places = [(line.y, line.x) for line in lines]
    assert places == sorted(places) and len({y for y, _ in places}) < 60


def test_what_cannot_be_set_is_named_and_stays_in_the_denominator():
    cases = [case("0", "one"), case("1", "𓀀"), case("2", "two"), case("3", "three")]
    page, read = numbered(cases)
    settings = ControlSettings(num_words=(), page=page, num_resamples=10)
    found = controls(bench(EXACT_WORDS), cases, read, settings)["typeset"]
    assert found.scores["exact_word_accuracy"].value == 0.75 and found.num_cases == 4
    (problem,) = found.problems
    assert problem.startswith("1: no font at hand has")
    with pytest.raises(TypesettingError, match="no case could be typeset and read: 1: no font"):
        controls(bench(EXACT_WORDS), cases[1:2], read, settings)


def test_a_control_page_that_the_reader_fails_on_is_no_quiet_zero():
    def read(pictures, *, quads=None):
        return [ReadPicture(problem="the engine choked")] * len(pictures)

    cases = [case("0", "one"), case("1", "two")]
    with pytest.raises(TypesettingError, match="read: the engine choked"):
        controls(bench(EXACT_WORDS), cases, read, ControlSettings(num_words=()))
    page, works = numbered(cases)

    def read_no_constants(pictures, *, quads=None):
        return works(pictures) if callable(pictures[0]) else read(pictures)

    settings = ControlSettings(num_words=(1,), page=page, num_resamples=2)
    found = controls(bench(EXACT_WORDS), cases, read_no_constants, settings)
    choked = ("the engine choked",)
    assert found["blank"].problems == found["constant_1"].problems == choked
    assert found["typeset"].problems == ()


def test_shuffling_gives_every_case_another_one():
    for seed, num_cases in itertools.product(range(4), (2, 3, 10)):
        other = derangement(num_cases, seed)
        assert sorted(other) == list(range(num_cases))
        assert all(i != place for i, place in enumerate(other))
    assert derangement(10, 0) != derangement(10, 1)
    with pytest.raises(ValueError, match="one case alone"):
        derangement(1, 0)
    page, read = numbered(PETS[:1])
    settings = ControlSettings(num_words=(), page=page, num_resamples=2)
    assert list(controls(bench(EXACT_WORDS), PETS[:1], read, settings)) == ["blank", "typeset"]


def test_shuffled_crops_are_dealt_to_the_quads_there_are():
    quad = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    cases = [case("0", "a", "b", "c", quads=(quad,) * 3), case("1", "x", "y", quads=(quad,) * 2)]
    readings = [[Reading((), (6, 4), crops=c.targets)] for c in cases]
    found = shuffled(cases, readings)
    assert [row[0].crops for row in found] == [("x", "y", "x"), ("a", "b")]
    page, read = numbered(cases)
    settings = ControlSettings(num_words=(1,), page=page, num_resamples=10)
    scores = controls(bench(ANYTEXT_SENTENCE_ACCURACY, crops=True), cases, read, settings)
    by_name = {k: c.scores["anytext_sentence_accuracy"].value for k, c in scores.items()}
    assert by_name == {"blank": 0, "constant_1": 0, "typeset": 1, "shuffled": 0}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_ranks_typeset_pages_above_shuffled_and_blank_ones(name, read, tmp_path):
    benchmark, redrawn = BENCHMARKS[name], BENCHMARKS[name].redrawn
    benchmark = redrawn(num_pages=16, page_px=(256, 256)) if redrawn else benchmark
    cases = benchmark.cases(make(name, tmp_path) if benchmark.where else None)
    if chinese_font() is None:
        cases = [c for c in cases if c.language != "zh"]
    if not cases:
        pytest.skip("the extra zh is not installed")
    cases = cases[-2:] if redrawn else [cases[0], cases[-1]]  # in type above 20 px
    page = lambda case: getattr(case, "pixels", None)  # noqa: E731  # our own pages
    settings = ControlSettings(num_words=(), size_px=SIZE_PX, page=page, num_resamples=10)
    found = controls(benchmark, cases, read, settings)
    (headline,) = (m for m in benchmark.metrics if m.name == benchmark.headline)
    sign = -1 if headline.lower_is_better else 1
    worth = {key: sign * control.scores[headline.name].value for key, control in found.items()}
    assert worth["typeset"] > worth["shuffled"] + 0.5
    assert worth["typeset"] > worth["blank"] + 0.5
    assert found["typeset"].problems == ()
