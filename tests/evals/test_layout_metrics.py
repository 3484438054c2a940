"""Boxes, rows and inks by hand, and on pages of ours whose lines stand where they were set."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage.color import deltaE_ciede2000

from blueprint.schema import Blueprint, Box, Text
from blueprint.typeset import PLAIN_FONT, bands, load_font
from evals.metrics.layout import LAYOUT, SAME_COLOUR, ink_of, lab_of
from evals.metrics.placing import intersection_over_union, likeness, num_rows
from evals.readers import ReadLine
from evals.scoring import Case, Reading
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import page

OURS = {metric.name: metric for metric in LAYOUT}
SIZE = (200, 200)


def line(string, *box):
    return ReadLine(string, tuple(map(float, box)), 1.0)


def planned(*texts):
    return Case("case", "", (), blueprint=Blueprint(*SIZE, "#fff", texts))


def scored(name, *pictures):
    metric = OURS[name]
    return float(metric.value(np.sum([metric.measure(*pair) for pair in pictures], axis=0)))


def test_rectangles_overlap_by_hand():
    assert intersection_over_union((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert intersection_over_union((0, 0, 10, 10), (10, 0, 10, 10)) == 0
    assert intersection_over_union((0, 0, 0, 0), (0, 0, 0, 0)) == 0


def test_a_line_is_like_the_part_of_an_element_that_it_says():
    assert likeness("summer", "Big Summer Sale") == 100
    assert likeness("Big Summer Sale today", "Sale") < 50  # two elements read as one are neither
    assert likeness("Smmer", "Big Summer Sale") > 70


def test_found_elements_overlap_their_boxes():
    title = Text("title", ("Big Summer", "Sale"), Box(0, 0, 500, 200))  # 100 x 40 px
    label = Text("label", ("Buy now",), Box(600, 800, 400, 100))
    reading = Reading((line("Big Summr", 10, 0, 90, 20), line("SALE", 10, 20, 40, 20)), SIZE)
    picture = planned(title, label), reading
    assert scored("elements_found", picture) == 1 / 2
    assert scored("box_iou", picture) == pytest.approx(90 * 40 / (100 * 40))
    assert scored("line_count", picture) == 1
    joined = Reading((line("Big Summer Sale", 0, 0, 100, 40),), SIZE)
    assert scored("box_iou", (planned(title), joined)) == 1
    assert scored("line_count", (planned(title), joined), picture) == 1 / 2
    unlike = Reading((line("quantity 3", 0, 0, 100, 40),), SIZE)
    assert scored("elements_found", (planned(title), unlike)) == 0
    assert np.isnan(scored("box_iou", (planned(title), unlike)))


def test_quads_are_places_too():
    quad = ((0.0, 0.0), (0.5, 0.1), (0.5, 0.2), (0.0, 0.1))
    case = Case("case", "", ("Buy now",), quads=(quad,))
    reading = Reading((line("Buy now", 0, 0, 100, 80),), SIZE)
    assert scored("box_iou", (case, reading)) == pytest.approx(1 / 2)  # of its 100 x 40 px
    assert np.isnan(scored("line_count", (case, reading)))
    without = Case("case", "", ("Buy now",))
    assert np.isnan(scored("elements_found", (without, reading)))


def test_equal_elements_take_the_nearest_line():
    buttons = [Text("button", ("Buy now",), Box(0, top, 500, 100)) for top in (100, 800)]
    reading = Reading((line("Buy now", 0, 160, 100, 20), line("Buy now", 0, 20, 100, 20)), SIZE)
    assert scored("box_iou", (planned(*buttons), reading)) == 1


def test_rows_are_counted_not_pieces():
    pieces = [line("Big", 0, 0, 20, 20), line("Sale", 30, 4, 20, 20), line("today", 0, 24, 40, 20)]
    assert num_rows(pieces) == 2 and num_rows([]) == 0


def printed(colour, *, ground="#fff", size_px=24):
    """A page with two words in a colour, and the box they stand in."""
    picture = Image.new("RGB", SIZE, ground)
    draw, font = ImageDraw.Draw(picture), load_font(PLAIN_FONT, size_px)
    draw.text((20, 80), "Buy now", colour, font)
    return np.asarray(picture), draw.textbbox((20, 80), "Buy now", font)


@pytest.mark.parametrize("ground", ["#fff", "#012", "#fc0"])
@pytest.mark.parametrize("colour", ["#a14", "#26a", "#888"])
def test_ink_is_measured_between_its_letters_edges(colour, ground):
    for size_px in (12, 24, 60):
        pixels, (left, top, right, foot) = printed(colour, ground=ground, size_px=size_px)
        part = pixels[top - 2 : foot + 2, left - 2 : right + 2].reshape(-1, 3)
        assert deltaE_ciede2000(ink_of(part), lab_of(colour)) < 5
    flat = np.full((9, 3), 17, np.uint8)
    assert ink_of(flat) == pytest.approx(lab_of("#111"), abs=1e-6)


def test_a_neighbouring_colour_is_the_same_and_another_is_not():
    def agreement(asked, inked):
        pixels, (left, top, right, foot) = printed(inked)
        box = Box(left * 5, top * 5, (right - left) * 5, (foot - top) * 5)
        case = planned(Text("button", ("Buy now",), box, colour=asked))
        read = (line("Buy now", left, top, right - left, foot - top),)
        return scored("colour_agreement", (case, Reading(read, SIZE, look=lambda: pixels)))

    assert agreement("#26a", "#26a") == agreement("#26a", "#27a") == agreement("#26a", "#26b") == 1
    assert agreement("#26a", "#2a6") == agreement("#26a", "#aaa") == agreement("#000", "#26a") == 0
    assert deltaE_ciede2000(lab_of("#26a"), lab_of("#27a")) < SAME_COLOUR
    pixels, _ = printed("#26a")
    text = Text("button", ("Buy now",), Box(0, 0, 500, 100))
    outside = (line("Buy now", 300, 300, 50, 20),)
    beyond = Reading(outside, SIZE, look=lambda: pixels)
    assert scored("colour_agreement", (planned(text), beyond)) == 0
    assert np.isnan(scored("colour_agreement", (planned(text), Reading(outside, SIZE))))


def test_our_own_pages_agree_with_their_blueprints():
    style, pictures = PageStyle(256, 256, split="heldout", quoted="all"), []
    for seed in range(1_000_000, 1_000_004):
        made = page(seed, style)
        lines = [
            line(string, *band)
            for text in made.blueprint.texts
            for string, band in zip(text.lines, bands(text, (256, 256)), strict=True)
        ]
        case = Case(str(seed), made.prompt, (), blueprint=made.blueprint)
        look = lambda made=made: made.pixels  # noqa: E731  # each page its own
        pictures.append((case, Reading(tuple(lines), (256, 256), look=look)))
    assert scored("elements_found", *pictures) == scored("line_count", *pictures) == 1
    assert scored("box_iou", *pictures) == pytest.approx(1)
    assert scored("colour_agreement", *pictures) == 1
    shifted = [(a[0], b[1]) for a, b in zip(pictures, pictures[1:] + pictures[:1], strict=True)]
    assert scored("elements_found", *shifted) < 0.3
