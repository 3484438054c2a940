"""A page on which every number stands, nothing is run and no link leads away; and its drawings."""

import dataclasses
import html
import json
import re
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from evals import report
from evals.charts import Axis, axis_of, curves, stacked, track
from evals.comparison import compare
from evals.gallery import NUM_RANDOM, NUM_WORST, chosen
from evals.rendering import label, number, ordered, percent, spaced
from evals.results import Attribution, ControlNote, Group, LegibilityBin, MetricScore, from_json
from evals.scoring import Score
from tests.evals.samples import (
    CONTROLS,
    EVIL,
    NAN,
    STAGES,
    Page,
    foreign,
    made,
    numbers_of,
    row,
    words_of,
)


def test_the_page_says_every_number_and_how_it_was_made(tmp_path):
    results = made()
    page = Page(report.write(tmp_path, results, [row(i) for i in range(3)]).read_text())
    assert numbers_of(results) - words_of(page) == set()
    for said in (results.command, results.reader_name, "det 00ff", "0ddba11", "b_<2>"):
        assert said in page.text
    sections = page.tags.count("section")
    assert page.text.count(results.command) == sections + 1 == 9  # the summary is none
    for name in (*results.metrics, *results.plans):
        assert spaced(name) in page.text
    for name in (*CONTROLS, *STAGES):
        assert label(name) in page.text
    assert "Ours, <of words>." in page.text
    assert from_json((tmp_path / "scores.json").read_text()) == results


def test_links_lead_to_files_beside_the_page_and_nowhere_else(tmp_path):
    rows = [row(0, name="a/../b #1%"), row(1)]
    path = report.write(tmp_path, made(), rows)
    links = Page(path.read_text()).links
    assert len(links) == 2 * (2 + 3 * len(STAGES)) + 1  # plan and pictures, overlays; scores.json
    assert all((tmp_path / unquote(link)).is_file() for link in links)
    assert np.asarray(Image.open(tmp_path / links[2])).shape == (8, 12, 3)
    for text in (path.read_text(), compare([made(), made("other")])):
        assert not re.search(r"https?:|url\(|@import|//[a-z]", text)


def test_whatever_a_prompt_says_is_shown_and_not_run(tmp_path):
    evil = dataclasses.replace(
        made(), run=EVIL, benchmark=EVIL, command=EVIL, missing=(EVIL,), reader={EVIL: EVIL},
        versions={EVIL: EVIL}, groups={EVIL: {EVIL: Group(1, {})}},
        attribution=Attribution({"read": 2, EVIL: 1}, {EVIL: {EVIL: {EVIL: 1}}}),
        controls={EVIL: {}}, control_notes={EVIL: ControlNote(EVIL, 1, (EVIL, EVIL))},
    )  # fmt: skip
    rows = [
        row(0, (EVIL,), name=EVIL, prompt=EVIL, targets=(EVIL, "x"), groups={EVIL: EVIL}),
        row(1, (EVIL,), targets=("y",), groups={EVIL: "other"}, plan="<svg/>"),
    ]
    page = Page(report.write(tmp_path, evil, rows).read_text())
    assert page.tags.count("script") == 1  # the filters
    assert page.text.count(EVIL) > 10 and "x" not in page.links
    several = Page(compare([evil, dataclasses.replace(evil, run="other")]))
    assert "script" not in several.tags and several.text.count(EVIL) > 5


def test_the_gallery_marks_differences_in_shape_and_colour(tmp_path):
    rows = [row(0, ("Biy Da", "noise")), row(1, ("Big Day", "Here"))]
    text = report.write(tmp_path, made(), rows).read_text()
    worst = text[text.index("<article") : text.index("</article>")]
    assert '<span class="swap"><del>g</del><ins>y</ins></span>' in worst
    assert "Da<del>y</del>" in worst and "<del>Here</del>" in worst
    assert "also read: <ins>noise</ins>" in worst
    assert "lost 3</b> of 3 words" in worst and "everything read" in text
    assert text.count('data-lost="1"') == text.count('data-lost="0"') == 1
    assert json.loads(html.unescape(re.findall('data-groups="([^"]*)"', text)[0])) == {
        "domain": "shop"
    }
    assert "<option>poster</option><option>shop</option>" in text


def test_foreign_pictures_need_neither_stages_nor_plans(tmp_path):
    Image.new("RGB", (1600, 800), "red").save(tmp_path / "large.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    looks = [
        tmp_path / "large.png", tmp_path / "broken.png", tmp_path / "none.png",
        lambda: np.zeros((8, 8, 3), np.uint8),
    ]  # fmt: skip
    rows = [
        row(i, pictures={"picture": look}, reads={"picture": ()}, plan=None)
        for i, look in enumerate(looks)
    ]
    path = report.write(tmp_path / "out", foreign(benchmark="longtext", missing=()), rows)
    page = Page(path.read_text())
    assert page.text.count("the picture is missing or could not be opened") == 2
    assert "overlay" not in path.read_text().split("</style>")[1]
    assert "Who lost" not in page.text and "Stage by stage" not in page.text
    sizes = [Image.open(p).size for p in sorted((tmp_path / "out" / "pictures").iterdir())]
    assert sizes == [(1024, 512), (8, 8)]
    with pytest.raises(ValueError, match="hand in both of each stage"):
        row(reads={})


def test_a_smaller_gallery_leaves_nothing_of_a_larger_one_and_everything_else(tmp_path):
    pictures, mine = tmp_path / "pictures", ("holiday.jpg", "worst_01_0_typeset.png.txt", "all.png")
    pictures.mkdir()
    for name in mine:
        (pictures / name).write_text("mine")
    outside = tmp_path / "outside.png"
    outside.write_text("mine")

    def linked(rows):
        page = Page(report.write(tmp_path, made(), rows).read_text())
        files = {path.name for path in pictures.iterdir()} - set(mine)
        assert files == {link.split("/")[1] for link in page.links if "pictures/" in link}
        assert all((pictures / name).read_text() == "mine" for name in mine)
        return len(files)

    assert linked([row(i) for i in range(4)]) == 4 * 5  # pictures and plan
    with (tmp_path / "pictures.txt").open("a") as file:
        file.write("../outside.png\n..\n")  # a list that somebody meddled with
    assert linked([row(0, plan=None), row(1)]) == 2 * 5 - 1
    large = np.zeros((8, 600, 3), np.uint8)
    assert linked([row(0, pictures={"picture": large}, reads={"picture": ()})]) == 2  # now a jpg
    assert linked([]) == 0 and outside.read_text() == "mine"
    assert (tmp_path / "pictures.txt").read_text() == ""


def test_what_a_broken_off_report_wrote_is_known_to_the_next(tmp_path):
    def torn():
        raise KeyboardInterrupt

    rows = [row(0), row(1, ("Big Day Here",), pictures={"a": torn}, reads={"a": ("Big Day Here",)})]
    with pytest.raises(KeyboardInterrupt):
        report.write(tmp_path, made(), rows)
    assert any((tmp_path / "pictures").iterdir())
    report.write(tmp_path, made(), [])
    assert not any((tmp_path / "pictures").iterdir())


def test_a_page_of_thousands_shows_some(tmp_path):
    rows = [row(i, ("Big Day Here",) if i % 3 else ("Big",)) for i in range(400)]
    found = chosen(rows)
    assert [len(several) for several in found.values()] == [NUM_WORST, NUM_RANDOM]
    assert all(r.reads["end_to_end"] == ("Big",) for r in found["worst"])
    assert len({r.name for r in found["random"]}) == NUM_RANDOM
    assert {r.reads["end_to_end"] for r in found["random"]} == {("Big",), ("Big Day Here",)}
    assert found == chosen(rows)
    assert list(chosen(rows[:5])) == ["all, worst first"] and chosen([]) == {}


def test_a_headline_is_told_by_its_controls():
    def verdict(value, floor, ceiling, *, lower=False):
        score = MetricScore(value, value, value, "", lower)
        controls = {
            "blank": {"exact_words": Score(9.0 if lower else 0.0, NAN, NAN)},
            "shuffled": {"exact_words": Score(floor, NAN, NAN)},
            "typeset": {"exact_words": Score(ceiling, NAN, NAN)},
        }
        found = foreign(metrics={"exact_words": score}, controls=controls, groups={})
        return report.verdict(found)

    assert verdict(0.5, 0.1, 0.9) == (
        "That is 50 % of the way from its best floor, 0.100 (shuffled targets), to its ceiling, "
        "0.900 (typeset by us)."
    )
    assert "25 % of the way from its best floor, 5.000" in verdict(4, 5, 1, lower=True)
    assert "No better than its best floor, 0.600" in verdict(0.5, 0.6, 0.9)
    assert "No better" in verdict(6, 5, 1, lower=True)
    assert "cannot tell these pictures apart" in verdict(0.5, 0.9, 0.9)
    assert report.verdict(foreign(controls={})) == ""


def test_a_copied_page_is_no_floor(tmp_path):
    worth = {"blank": 0.0, "copied": 0.95, "typeset": 0.9}
    controls = {name: {"exact_words": Score(value, NAN, NAN)} for name, value in worth.items()}
    score = MetricScore(0.45, 0.4, 0.5)
    results = foreign(metrics={"exact_words": score}, controls=controls, groups={})
    assert report.verdict(results).startswith("That is 50 % of the way from its best floor, 0.000")
    twin = dataclasses.replace(results, run="twin")
    shaded = '<rect x="0.00%" width="90.00%" y="0" height="24" class="room"'
    pages = report.write(tmp_path, results, []).read_text(), compare([results, twin])
    assert all(shaded in page for page in pages)
    assert label("copied") in pages[0] and "copied" not in Page(pages[0]).text


def test_the_table_says_what_a_terminal_needs():
    lines = report.table(made()).splitlines()
    assert lines[0] == "demo on pages: 1,234 prompts, 3,702 pictures, rapidocr 3.10.0"
    assert lines[1] == "2 pictures missing, scored as empty"
    assert lines[3].split() == ["exact", "words", "0.001", "0.002", "to", "0.003"]
    assert len({line.rindex(".") for line in lines[3:9] if " to " in line}) == 1  # aligned
    text = "\n".join(lines)
    for name in (*CONTROLS, *STAGES):
        assert label(name) in text
    assert "of 5,065 words 1,015 were read; lost by: reader 1,011, tokenizer 1,012" in text
    assert "typeset by us 4.44" in text and max(map(len, lines)) <= 120
    assert "lost by" not in report.table(foreign())


def test_controls_say_what_they_are_and_what_failed(tmp_path):
    notes = {
        "blank": ControlNote("a white page", 1234),
        "typeset": ControlNote("the targets " * 12, 96, ("a: no <glyph>\x1b[2J", "b: torn")),
    }
    results = dataclasses.replace(made(), control_notes=notes)
    page = Page(report.write(tmp_path, results, []).read_text())
    assert "blank page a white page typeset by us the targets" in page.text
    assert "(scored over 96 of 1,234 prompts)" in page.text and page.text.count("scored over") == 1
    assert "2 problems in setting or reading it a: no <glyph>\x1b[2J b: torn" in page.text
    text = report.table(results)
    assert "  blank page: a white page\n  typeset by us: the targets the" in text
    assert r"2 problems in setting or reading it, first of all: a: no <glyph>\x1b[2J" in text
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 100
    assert from_json((tmp_path / "scores.json").read_text()).control_notes == notes
    assert "controls" not in report.table(dataclasses.replace(results, control_notes={}))


def test_drawings_place_what_they_are_given():
    axis = axis_of([0.2, 0.7, NAN])
    assert axis == Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))
    assert axis_of([3.7]).high == 4 and axis_of([120]).high == 200 and axis_of([-3]).low == -4
    assert axis.percent(0.25) == "25.00%" and axis.percent(7) == "100.00%"
    assert Axis(1, 100, (), by_factors=True).percent(10) == "50.00%"
    drawn = track(axis, Score(0.5, 0.4, 0.65), room=(0.1, 0.9), marks={"blank": 0.0})
    assert 'class="interval" x1="40.00%" x2="65.00%"' in drawn and 'x="50.00%"' in drawn
    assert 'x="10.00%" width="80.00%"' in drawn and "<title>blank 0.000</title>" in drawn
    bare = track(axis, Score(NAN, NAN, NAN))
    assert "interval" not in bare and "path" not in bare
    parts = re.findall(
        r'x="([\d.]+)%" width="([\d.]+)%"', stacked({"read": 3, "x": 0, "reader": 1})
    )
    assert parts == [("0.000", "75.000"), ("75.000", "25.000")]
    assert "rect" not in stacked({})
    bins = [LegibilityBin((1, 4), 0.5, 0.4, 0.6, 9), LegibilityBin((4, 16), 1.0, NAN, NAN, 9)]
    drawn = curves({"a": bins}, {"a": 4.0}, hues={"a": "reader"}, label="shares")
    points = re.findall(r'<svg x="([\d.]+)%" y="([\d.]+)" overflow="visible"><path', drawn)
    assert points == [("25.00", "120.0"), ("75.00", "0.0")] and "4 px" in drawn
    assert drawn.count('class="whisker"') == 1


def test_names_and_numbers_are_told_as_people_do():
    assert [number(v) for v in (0.12345, -0.5, 12.34, 1234.5, NAN)] == [
        "0.123", "−0.500", "12.3", "1,234", "–",
    ]  # fmt: skip
    assert percent(0.046) == "4.6 %" and percent(0.61) == "61 %"
    assert list(ordered({"planner": 1, "reader": 2, "x": 3, "read": 4})) == [
        "read", "reader", "planner", "x",
    ]  # fmt: skip
