"""The scores of pages in the loop are the benchmark's own."""

from typing import ClassVar

import numpy as np
import pytest

from blueprint.schema import Blueprint, Box, Text
from evals.readers import ReadLine
from evals.reading_back import read_back


class Recites:
    """Reads on the i-th picture what it was given for it; a picture is its number."""

    identity: ClassVar = {"engine": "recites"}

    def __init__(self, *pages):
        self.pages = pages

    def read(self, picture):
        lines = self.pages[int(picture[0, 0, 0])]
        return [ReadLine(line, (0.0, 20.0 * i, 90.0, 15.0), 1.0) for i, line in enumerate(lines)]


def page(*lines):
    texts = tuple(Text("title", (line,), Box(0, 100 * i, 900, 90)) for i, line in enumerate(lines))
    return Blueprint(128, 128, "#fff", texts)


def test_what_nobody_asked_for_costs_f1_and_not_accuracy():
    pictures = [np.full((128, 128, 3), i, np.uint8) for i in range(2)]
    pages = [page("BIG DEAL"), page("Shop now")]
    found = read_back(Recites(["BIG DEAL"], ["Shop now", "and two more"]), pages, pictures)
    assert found["word_accuracy"] == found["exact_word_accuracy"] == 1
    assert found["word_precision"] == pytest.approx(4 / 7)
    assert found["word_f1"] == pytest.approx(2 * 4 / (4 + 7))
    assert found["exact_element_accuracy"] == 1
    wrong = read_back(Recites(["big DEAL"], []), pages, pictures)
    assert wrong["word_accuracy"] == wrong["exact_word_accuracy"] == pytest.approx(1 / 4)
    assert wrong["exact_element_accuracy"] == 0
