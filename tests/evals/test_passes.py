"""The table and the drawing of words against passes."""

import dataclasses
import io
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from evals.passes import Row, chart, keeps_words, table, to_png
from evals.scoring import Score

BASE = Row("causal", "raster, one at a time", 1, 256, Score(0.92, 0.9, 0.94), 0.9, 17.5, 0.85,
           {1: 100.0, 16: 20.0})  # fmt: skip
FAST = dataclasses.replace(
    BASE, model="masked", way="blueprint", asked=9, passes=4.25, words=Score(0.91, 0.88, 0.93),
    ms={1: 10.0, 16: 16.0},
)  # fmt: skip
WORSE = dataclasses.replace(FAST, asked=2, passes=2.0, words=Score(0.7, 0.65, 0.75))


def test_the_table_has_speeds_beside_the_base():
    head, _, *lines = table([BASE, FAST], BASE).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")][-1] == "times faster, batch 16"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][3:6] == ["256.0", "0.920", "0.900 to 0.940"] and cells[0][-2:] == ["1.0"] * 2
    assert cells[1][3] == "4.2" and cells[1][-2:] == ["10.0", "1.2"]
    untimed = dataclasses.replace(FAST, ms={})
    assert table([BASE, untimed], BASE).splitlines()[-1].endswith("|  |  |  |  |")


def test_words_are_kept_within_the_interval():
    assert keeps_words(BASE, BASE) and keeps_words(FAST, BASE) and not keeps_words(WORSE, BASE)


def test_every_row_is_a_point_of_both_panels():
    drawn = chart([BASE, FAST, WORSE], {"tokenizer alone": 0.96})
    root = ElementTree.fromstring(drawn)
    tag = "{http://www.w3.org/2000/svg}"
    panels = root.findall(f"{tag}g")
    assert len(panels) == 2
    for panel in panels:
        points = [c for g in panel.findall(f"{tag}g") for c in g.findall(f"{tag}circle")]
        assert len(points) == 3
        heights = sorted(float(point.get("cy")) for point in points)
        assert heights[-1] > heights[1] + 100  # fewer words are lower down
    assert drawn.count("tokenizer alone") == 2
    untimed = [dataclasses.replace(row, ms={}) for row in (BASE, FAST)]
    assert len(ElementTree.fromstring(chart(untimed, {})).findall(f"{tag}g")) == 1
    made = to_png(drawn)
    picture = np.asarray(Image.open(io.BytesIO(made)).convert("RGB"))
    assert len(made) < 100_000 and picture.shape[1] > 1000
    assert (picture == 255).all(axis=-1).mean() > 0.8 and picture.min() < 100


def test_a_curve_of_all_words_is_drawn_at_the_top():
    best = dataclasses.replace(FAST, words=Score(1.0, 1.0, 1.0))
    root = ElementTree.fromstring(chart([best], {}))
    tag = "{http://www.w3.org/2000/svg}"
    heights = {c.get("cy") for c in root.iter(f"{tag}circle")} - {None}
    assert "0" in heights or "0.0" in heights
