"""Formats that people hold: each becomes entries, and every bad record is named and counted."""

import json

import numpy as np
import pytest
from PIL import Image

from blueprint.check import copy_fidelity
from blueprint.schema import Box, Picture, Shape, Text
from train.data.entries import Fitted, SourceError, gather, prevailing_colours, prompt_for
from train.data.formats import anyword, coco_text, crello, rico


def save(path, size=(200, 100), *, broken=False):
    """A white picture with a red bar, or the first bytes of one."""
    pixels = np.full((size[1], size[0], 3), 255, np.uint8)
    pixels[20:40, 50:150] = (255, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    if broken:
        path.write_bytes(path.read_bytes()[:60])


def complaints(records, where):
    """What a format says of its bad records; the good ones that are left without them."""
    records = list(records)
    with pytest.raises(SourceError, match="skip_bad to go on") as caught:
        gather(records, where)
    return str(caught.value), gather(records, where, skip_bad=True)[0]


def require(said, *parts):
    for part in parts:
        assert part in said, said


SQUARE = [[50, 20], [150, 20], [150, 40], [50, 40]]


def test_anyword(tmp_path):
    for name in ("a", "b", "c", "d"):
        save(tmp_path / "imgs" / f"{name}.jpg", broken=name == "b")
    line = {"polygon": SQUARE, "text": "BIG  Sale", "language": "Latin", "valid": True}
    unread = {**line, "text": "###", "valid": False}
    far = {**line, "polygon": [[150, 0], [240, 0], [240, 9]]}
    data = [
        {"img_name": "a.jpg", "caption": 'a "BIG Sale"', "annotations": [line, unread]},
        {"img_name": "b.jpg", "caption": "x", "annotations": []},
        {"img_name": "c.jpg", "annotations": [line]},
        {"img_name": "d.jpg", "caption": "x", "annotations": [far]},
        {"img_name": "a.jpg", "caption": "x", "annotations": [{**line, "polygon": [1, 2]}]},
        {"img_name": "../data.json", "caption": "x"},
    ]
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"data_root": "imgs", "data_list": data}))
    said, (entry,) = complaints(anyword.read(tmp_path), path)
    require(
        said, "5 bad records and 1 good", "is missing or broken: b.jpg (number 1)",
        "has no caption: c.jpg (number 2)", "past the image: d.jpg (number 3)",
        "polygon that is not [[x, y], ...]: a.jpg", "outside the folder: ../data.json",
    )  # fmt: skip
    place = Box(250, 200, 500, 200)
    (text,) = entry.elements
    assert text == Text("body", ("BIG Sale",), place, size_milli=160, source="verbatim")
    path.write_text(json.dumps({"data_root": "elsewhere", "data_list": data}))
    with pytest.raises(FileNotFoundError, match="set its data_root"):
        list(anyword.read(path))
    path.write_text("[]")
    with pytest.raises(SourceError, match="no list `data_list`"):
        list(anyword.read(path))
    path.write_text('{"data_list": ')
    with pytest.raises(SourceError, match=r"data\.json is no JSON \(.*\): fetch or write it anew"):
        list(anyword.read(path))


def test_coco_text(tmp_path):
    names = {"1": "a", "2": "b", "3": "c", "4": "d", "5": "e"}
    for name in names.values():
        save(tmp_path / "train2014" / f"{name}.jpg", broken=name == "b")
    imgs = {
        key: {"id": int(key), "file_name": f"{n}.jpg", "set": "train"} for key, n in names.items()
    }
    imgs["5"]["set"] = "val"
    good = {
        "image_id": 1,
        "bbox": [50, 20, 100, 20],
        "utf8_string": "SALE",
        "legibility": "legible",
    }
    anns = {
        "10": good, "11": {**good, "legibility": "illegible", "utf8_string": "?"},
        "12": {"image_id": 1, "bbox": [0, 0, 5, 5], "legibility": "legible"},
        "13": {**good, "image_id": 4, "bbox": [150, 0, 60, 9]},
    }  # fmt: skip
    captions = [{"image_id": n, "caption": "a sign"} for n in (1, 1, 2, 4, 5)]
    (tmp_path / "captions_train2014.json").write_text(json.dumps({"annotations": captions}))
    path = tmp_path / "COCO_Text.json"
    path.write_text(json.dumps({"imgs": imgs, "anns": anns}))
    said, (entry,) = complaints(coco_text.read(path, "train"), path)
    require(
        said, "3 bad records and 1 good", "missing or broken: b.jpg (id 2)",
        "no caption: c.jpg (id 3)", "past the image: d.jpg (id 4)",
    )  # fmt: skip
    assert entry.caption == "a sign"
    assert [(t.string, t.box, t.source) for t in entry.elements] == [
        ("SALE", Box(250, 200, 500, 200), "free")
    ]
    (held,), bad = gather(coco_text.read(path, "val"), path)
    assert held.image.name == "e.jpg" and held.elements == () and not bad
    path.write_text("{}")
    with pytest.raises(SourceError, match="no dict `imgs` and no dict `anns`"):
        list(coco_text.read(path, "train"))


ROW = {
    "id": "1", "canvas_width": 400, "canvas_height": 200, "title": "Spring 'sale' of hats",
    "format": "Poster", "preview": "a.png",
    "type": ["ColoredBackground", "ImageElement", "SvgElement", "TextElement"],
    "left": [0, -40, 500, 100], "top": [0, 0, 0, 40], "width": [400, 240, 50, 200],
    "height": [200, 200, 50, 80], "angle": [0, 0, 0, 0], "color": [[[255, 0, 0]], [], [], []],
    "text": ["", "", "", "Hats off\nnow"], "font_size": [0, 0, 0, 32],
    "text_align": ["", "", "", "center"], "capitalize": [False, False, False, True],
    "font_bold": [[], [], [], [True] * 12],
    "text_color": [[], [], [], ["rgba(0,0,255,1)"] * 12],
}  # fmt: skip


def change(row, **columns):
    """The row with other values in its last place."""
    return {**row, **{key: [*row[key][:-1], value] for key, value in columns.items()}}


def test_crello(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", broken=True)
    bare = {key: value for key, value in ROW.items() if key not in ("title", "id")}
    shares = {
        "type": ["coloredBackground", "imageElement", "svgElement", "textElement"],
        "left": [0, -0.1, 1.25, 0.25], "top": [0, 0, 0, 0.2], "width": [1, 0.6, 0.1, 0.5],
        "height": [1, 1, 0.2, 0.4], "angle": [0, 0, 0, 0.01],
    }  # fmt: skip
    rows = [
        ROW, {**ROW, **shares, "caption": "any hat"}, {**bare, "keywords": ["hat", "sun"]},
        {**ROW, "id": "2", "preview": "b.png"}, bare, change({**ROW, "id": "3"}, left=300),
        change({**ROW, "id": "4"}, angle=30), change({**ROW, "id": "5"}, type=3),
        {**ROW, "id": "6", "left": [0]}, {**ROW, "id": "7", "canvas_width": 0},
        change({**ROW, "id": "8"}, angle="steep"),
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    said, (first, second, third) = complaints(crello.read(path), path)
    require(
        said, "9 bad records and 3 good", "missing or broken: 2 (line 4)",
        "no caption, title or keywords: a.png (line 5)", "past the image: 3 (line 6)",
        "stands at an angle: 4 (line 7)", "type that is no name", "unlike lengths: 6 (line 9)",
        "canvas_height in pixels: 7", "is no JSON object: line 12",
        "has an angle that is no number: 8 (line 11)",
    )  # fmt: skip
    picture, text = first.elements  # what lies wholly off the canvas is not there
    assert first.background == "#f00"
    assert picture == Picture(Box(0, 0, 500, 1000), "a photograph")
    assert text == Text(
        "body", ("HATS OFF", "NOW"), Box(250, 200, 500, 400), weight="bold", size_milli=160,
        colour="#00f", align="center",
    )  # fmt: skip
    assert first.caption == 'Poster: Spring sale of hats with "HATS OFF NOW"'
    assert [e.box for e in second.elements] == [e.box for e in first.elements]
    assert second.caption == "any hat" and second.elements[1].source == "free"
    assert third.caption.startswith("Poster: hat, sun with")
    record = Fitted((first,), 128, 128)[0]
    assert copy_fidelity(record["prompt"], record["blueprint"]) == 1.0
    assert tuple(record["pixels"][0, 0]) == (255, 0, 0)  # padded with the page's own colour


def node(label, bounds, **more):
    return {"componentLabel": label, "bounds": bounds, **more}


def test_rico(tmp_path):
    tree = {"bounds": [0, 0, 1000, 2000], "children": [
        node("Card", [0, 0, 1000, 1000], children=[
            node("Text", [100, 100, 500, 140], text="Hello"),
            node("Text", [100, 200, 300, 500], text="one two three four five six seven"),
        ]),
        node("Text Button", [200, 400, 800, 480], text="Log in"),
        node("Icon", [0, 1900, 100, 2000], iconClass="favorite"),
        node("Icon", [200, 1900, 300, 2000], iconClass="av_forward"),
        node("Image", [0, 1000, 1100, 1800]), node("Text", [0, 2100, 100, 2200], text="below"),
        node("Checkbox", [5, 5, 5, 9], text="no area"),
    ]}  # fmt: skip
    cut = {**tree, "children": [node("Text", [900, 0, 1100, 50], text="cut")]}
    screens = {"1": tree, "2": tree, "3": tree, "4": cut, "5": tree, "6": {"bounds": "?"}}
    (tmp_path / "semantic_annotations").mkdir()
    for name, screen in screens.items():
        save(tmp_path / "combined" / f"{name}.jpg", (100, 200), broken=name == "2")
        (tmp_path / "semantic_annotations" / f"{name}.json").write_text(json.dumps(screen))
    rows = "".join(f"{n},com.x\n" for n in (1, 2, 4, 6))
    (tmp_path / "ui_details.csv").write_text("UI Number,App Package Name\n" + rows)
    (tmp_path / "app_details.csv").write_text(
        "App Package Name,Play Store Name,Category\ncom.x,Mint,Finance\n"
    )
    (tmp_path / "screen_summaries.csv").write_text("screenId,summary\n5,a login page\n5,other\n")
    said, (first, second) = complaints(rico.read(tmp_path), tmp_path)
    require(
        said, "4 bad records and 2 good", "missing or broken: screen 2",
        "no caption: no summary, and no name of its app: screen 3", "past the image: screen 4",
        "no bounds [left, top, right, bottom]: screen 6",
    )  # fmt: skip
    quotes = '"Hello", "one two three four five six seven", "Log in"'
    assert first.caption == f"a screen of the Finance app Mint with {quotes}"
    assert second.caption == f"a login page with {quotes}"
    card, hello, many, back, button, heart, icon, image = first.elements
    assert card == Shape("rounded", Box(0, 0, 1000, 500), "#fff")
    assert hello.lines == ("Hello",) and hello.box == Box(100, 50, 400, 20)
    assert 2 < len(many.lines) < 7 and many.string.startswith("one two")
    assert back.kind == "rounded" and (button.kind, button.align) == ("button", "center")
    assert (heart.kind, heart.box) == ("heart", Box(0, 950, 100, 50))
    assert icon.caption == "an icon: av forward" and image.box == Box(0, 500, 1000, 400)
    assert all(t.source == "verbatim" for t in (hello, many, button))
    with pytest.raises(FileNotFoundError, match="unpack RICO's semantic annotations"):
        list(rico.read(tmp_path / "combined"))


def test_colours_and_quotes():
    pixels = np.full((40, 40, 3), 255, np.uint8)
    pixels[10:20, 10:20] = (0, 0, 255)
    image, page = Image.fromarray(pixels), Box(0, 0, 1000, 1000)
    assert prevailing_colours(image, page) == ("#fff", "#00f")
    assert prevailing_colours(image, Box(0, 0, 100, 100)) == ("#fff", "#fff")
    texts = [Text("body", (line,), page) for line in ("a", 'b "c"', '“d” "e"')]
    assert prompt_for('the "best"  page', texts) == 'the best page with "a", “b "c"”'
    assert prompt_for("it's plain", []) == "it's plain"
