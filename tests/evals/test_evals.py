"""Scores by hand, a reader that reads, and controls that score what they should."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from blueprint.schema import Blueprint, Box, Text
from blueprint.typeset import PLAIN_FONT, load_font
from evals.health import alarms, code_use
from evals.metrics.pixels import psnr_db, ssim
from evals.metrics.words import normalise, word_accuracy, word_hits
from evals.proof import element_reads, lost_words
from evals.readers import RapidReader, ReadLine


@pytest.fixture(scope="module")
def reader():
    return RapidReader()


def test_words_are_counted_exactly():
    assert word_hits(["Buy", "now", "now"], ["now Buy"]) == [True, True, False]
    assert word_hits(["Sale"], ["sale"]) == [False]
    assert word_hits(["don't", "A-B"], ["don’t A–B"]) == [True, True]
    assert normalise("a\u00a0 b\uff01") == "a b!"
    assert word_accuracy([["a", "b"], ["c", "d"]], [["a"], ["c d"]]) == 0.75


def test_pictures_and_codes_are_measured():
    black = np.zeros((1, 16, 16, 3), np.uint8)
    grey = black + 16
    assert psnr_db(black, grey) == pytest.approx(24.05, abs=0.01)
    assert psnr_db(black, black) == float("inf") and ssim(black, black) == pytest.approx(1.0)
    codes = np.array([0, 0, 1, 1]).reshape(1, 2, 2, 1)
    assert code_use(codes, 4) == {
        "usage": 0.5, "perplexity": pytest.approx(2.0), "least_perplexity": pytest.approx(2.0),
        "dead_codes": 2.0,
    }  # fmt: skip


def test_a_collapsed_codebook_raises_the_alarm():
    rng = np.random.default_rng(0)
    alive = rng.integers(0, 512, (4, 8, 8, 3))  # 256 of 512 draws: half of the codes are unseen
    assert alarms(alive, 512) == ()
    few = np.where(np.arange(3) == 1, alive % 20, alive)  # one of three codes keeps 20 values
    (said,) = alarms(few, 512)
    assert "of 1 of 3 codes of a position the usage is below 0.1 (least 0.0992)" in said
    one = np.where(rng.random((4, 8, 8, 1)) < 0.05, 1, np.zeros((1, 1, 1, 1), int))
    (said,) = alarms(one, 2)  # both values occur, but one of them hardly
    assert "the perplexity is below 1.5" in said and "take fsq" in said


def test_the_reader_reads_small_print_where_it_stands(reader):
    page = Image.new("RGB", (128, 128), "#fed")
    font = load_font(PLAIN_FONT, 14)
    ImageDraw.Draw(page).text((10, 80), "Hembtar K49", "#124", font)
    lines = reader.read(np.asarray(page))
    assert reader.words(np.asarray(page)) == ["Hembtar", "K49"]
    left, top, width, height = lines[0].box_px
    assert abs(left - 10) < 6 and 70 < top < 95 and 60 < width < 110 and height < 30


def test_lines_belong_to_the_text_they_overlap_most():
    texts = (
        Text("title", ("Big Day",), Box(0, 0, 1000, 200)),
        Text("label", ("Here",), Box(0, 500, 1000, 200)),
    )
    blueprint = Blueprint(128, 128, "#fff", texts)
    lines = [ReadLine("Big Dax", (4, 3, 80, 20), 1.0), ReadLine("Here", (4, 66, 50, 20), 1.0)]
    reads = element_reads(blueprint, lines)
    assert reads == [["Big", "Dax"], ["Here"]]
    assert lost_words(texts[0], reads[0]) == ["Day"] and lost_words(texts[1], reads[1]) == []
