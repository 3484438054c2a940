"""Folders of pictures: what is found in them, what is said of what is not, and that nothing leaves
the denominator."""

import functools
import json

import numpy as np
import pytest
from PIL import Image

from evals.benchmarks import open_benchmark
from evals.controls import ControlSettings, keep_typeset
from evals.metrics.published import ANYTEXT_SENTENCE_ACCURACY, LONGTEXT_RECALL
from evals.pictures import PicturesError, gather, read_pictures, write_prompts
from evals.readers import RapidReader, ReadLine, ReadPicture, load, read_all
from evals.scoring import Case, score
from evals.typesetting import set_strings, typeset
from tests.evals.tiny_benchmarks import make

CASES = [Case(name, f"A sign of {name}", ("good words", name)) for name in ("7", "a-b", "shop_2")]


def paint(path, *, grey=200, size=(24, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey,) * 3).save(path)
    return path


def names(pictures):
    return [[path and path.name for path in row] for row in pictures.paths]


def manifest(folder, *rows):
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")


def by_grey(pictures, *, quads=None):
    """A reader of grey pictures: it reads the words of the case whose number is the level."""
    found = []
    for place, source in enumerate(pictures):
        picture = load(source)
        size, grey = (picture.shape[1], picture.shape[0]), int(picture.mean())
        if grey == 255:
            found.append(ReadPicture(problem="it is too bright"))
        elif quads is not None:
            found.append(ReadPicture((), size, CASES[grey].targets[: len(quads[place])]))
        else:
            line = ReadLine(" ".join(CASES[grey].targets), (0, 0, 9, 9), 1.0)
            found.append(ReadPicture((line,), size))
    return found


def test_pictures_are_found_by_their_names(tmp_path):
    for name in ("7.png", "a-b.JPG", "shop_2.webp", "notes.txt", ".7.png"):
        paint(tmp_path / name) if name != "notes.txt" else (tmp_path / name).write_text("x")
    found = gather(tmp_path, CASES)
    assert names(found) == [["7.png"], ["a-b.JPG"], ["shop_2.webp"]]
    assert found.missing == found.notes == ()


def test_several_pictures_of_a_prompt_are_numbered(tmp_path):
    for case in CASES:
        for k in range(11):
            paint(tmp_path / f"{case.name}_{k}.png")
    found = gather(tmp_path, CASES)
    assert names(found)[2] == [f"shop_2_{k}.png" for k in range(11)]
    four = gather(tmp_path, CASES, images_per_prompt=4)
    assert names(four)[0] == [f"7_{k}.png" for k in range(4)]
    (note,) = four.notes
    assert note.startswith("pictures beyond 4 a prompt, which are not scored (21): 7_10.png, 7_4")


def test_what_is_missing_or_broken_is_listed_at_once(tmp_path):
    paint(tmp_path / "7_0.png")
    paint(tmp_path / "7_1.png")
    paint(tmp_path / "a-b_1.png")
    (tmp_path / "a-b_0.png").write_bytes(paint(tmp_path / "cut.png").read_bytes()[:40])
    said = (
        r"missing pictures \(2 of 6\): shop_2 \(0\), shop_2 \(1\); pictures that cannot be opened "
        r"\(1 of 6\): a-b_0.png \(the first: .+\); names of none of the 3 cases \(1\): cut.png\. "
        r"Make them again, .*missing_ok"
    )
    with pytest.raises(PicturesError, match=said):
        gather(tmp_path, CASES)
    found = gather(tmp_path, CASES, missing_ok=True)
    assert names(found) == [["7_0.png", "7_1.png"], [None, "a-b_1.png"], [None, None]]
    assert found.missing[:2] == ("shop_2 (0)", "shop_2 (1)")
    assert found.missing[2].startswith("a-b_0.png (") and len(found.missing) == 3
    assert [note.split(":")[0] for note in found.notes] == [
        "missing pictures (2 of 6)", "pictures that cannot be opened (1 of 6)",
        "names of none of the 3 cases (1)",
    ]  # fmt: skip


def test_a_long_list_is_cut_after_its_number(tmp_path):
    cases = [Case(f"c{i}", "", ("x",)) for i in range(9)]
    paint(tmp_path / "c8.png")
    with pytest.raises(PicturesError, match=r"\(8 of 9\): c0, c1, c2, c3, c4, \.\.\."):
        gather(tmp_path, cases)


def test_an_empty_or_foreign_folder_is_an_error_even_if_pictures_may_be_missing(tmp_path):
    with pytest.raises(PicturesError, match=r"no folder; it should have .* 3 cases, .* 7_0.png"):
        gather(tmp_path / "nowhere", CASES, missing_ok=True)
    paint(tmp_path / "other_0.png")
    with pytest.raises(PicturesError, match=r"has no picture of 3 .*of no case \(1\): other_0.png"):
        gather(tmp_path, CASES, missing_ok=True)


def test_two_files_for_one_picture_are_an_error(tmp_path):
    for name in ("7.png", "7_0.png", "7.jpg"):
        paint(tmp_path / name)
    with pytest.raises(PicturesError, match=r"same picture \(3\): 7.jpg, 7.png, 7_0.png"):
        gather(tmp_path, CASES[:1], missing_ok=True)
    shops = [Case("shop", "", ("x",)), CASES[2]]
    folder = paint(tmp_path / "shops" / "shop_2.png").parent
    with pytest.raises(PicturesError, match=r"could be the picture of shop_2 or picture 2 of shop"):
        gather(folder, shops)


def test_a_manifest_says_whose_pictures_they_are(tmp_path):
    for name in ("x.png", "deep/y.png", "z.webp", "7_5.png"):
        paint(tmp_path / name)
    rows = [
        {"name": "7", "file": "x.png", "prompt": "A sign\nof 7", "seed": 3},
        {"name": "a-b", "file": "deep/y.png", "prompt": "A great sign of a-b"},
        {"name": "stranger", "file": "z.webp"},
        {"name": "shop_2", "file": "z.webp"},
        {"name": "7", "file": "7_5.png"},
    ]
    manifest(tmp_path, *rows[:3], "", {"name": "shop_2", "file": "gone.png"}, rows[4])
    found = gather(tmp_path, CASES, missing_ok=True)
    assert names(found) == [["x.png", "7_5.png"], ["y.png", None], [None, None]]
    assert found.notes[1:] == (
        "names of none of the 3 cases (1): stranger",
        "cases given another prompt than the benchmark's (1): a-b",
    )
    manifest(tmp_path, *rows[:2], rows[3], rows[0])
    with pytest.raises(PicturesError, match=r"listed twice .* \(1\): x.png"):
        gather(tmp_path, CASES)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{name: 7}", r"manifest.jsonl, line 2 is no JSON"),
        (
            '{"name": "7"}',
            r'line 2: a picture is \{"name": ..., "file": ...\}.*and not \{"name": "7"',
        ),
        ('{"name": "7", "file": "x", "sead": 1}', r"line 2: a picture is .*sead"),
        ('{"name": 7, "file": "x"}', r"line 2: name is no str"),
        ("[]", r"line 2: a picture is"),
    ],
)
def test_a_wrong_line_of_a_manifest_is_named(tmp_path, line, said):
    manifest(tmp_path, {"name": "7", "file": "x.png"}, line)
    with pytest.raises(PicturesError, match=said):
        gather(tmp_path, CASES)


def test_missing_pictures_stay_in_the_denominator(tmp_path):
    paint(tmp_path / "7_0.png", grey=0)
    paint(tmp_path / "7_1.png", grey=255)  # which the reader cannot read
    paint(tmp_path / "a-b_0.png", grey=1)
    found = gather(tmp_path, CASES, missing_ok=True)
    readings, problems = read_pictures(found, CASES, by_grey)
    assert [len(several) for several in readings] == [2, 2, 2]
    assert problems == ("it is too bright",)
    score_ = score((LONGTEXT_RECALL,), CASES, readings)["longtext_recall"].value
    assert score_ == pytest.approx((3 + 3) / (6 + 6 + 6))  # a-b is ab, shop_2 is shop2
    lost = readings[2][0]
    assert lost.strings == () and lost.size_px == (24, 16) and lost.look().min() == 255
    assert readings[1][0].look().shape == (16, 24, 3)


def test_crops_are_read_in_the_quads_of_their_case(tmp_path):
    square = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    cases = [Case(c.name, c.prompt, c.targets, (square, square)) for c in CASES]
    paint(tmp_path / "7.png", grey=0)
    paint(tmp_path / "shop_2.png", grey=0)
    found = gather(tmp_path, cases, missing_ok=True)
    readings, _ = read_pictures(found, cases, by_grey, crops=True)
    assert readings[0][0].crops == ("good words", "7")
    scores = score((ANYTEXT_SENTENCE_ACCURACY,), cases, readings)
    assert scores["anytext_sentence_accuracy"].value == pytest.approx((2 + 0 + 1) / 6)


def test_prompts_are_written_for_the_system_and_its_manifest_matches(tmp_path):
    quad = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.25), (0.0, 0.25))
    placed = Case("p", "Ein Café", ("Café",), (quad,), source=tmp_path / "begin.png")
    write_prompts([CASES[0], placed], tmp_path / "prompts.jsonl", images_per_prompt=4)
    lines = (tmp_path / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {"name": "7", "prompt": "A sign of 7", "images": 4}
    assert "Café" in lines[1]
    row = json.loads(lines[1])
    assert row["lines"] == [{"text": "Café", "quad": np.asarray(quad).tolist()}]
    assert row["source"] == str(tmp_path / "begin.png")


def test_case_order_and_extra_text_move_the_strict_scores_of_a_folder_and_recall_does_not(tmp_path):
    benchmark = open_benchmark("longtext_en")
    cases = benchmark.cases(make("longtext_en", tmp_path))
    first, second = cases[0].targets
    pages = {
        "right": (first, second),
        "case": (first.upper(), second),
        "order": (second, first),
        "extra": (first, second, "Quartz lantern"),
        "blank": (),
    }
    read = functools.partial(read_all, RapidReader(num_threads=1), progress=False)
    scores = {}
    for name, strings in pages.items():
        folder = tmp_path / name
        folder.mkdir()
        Image.fromarray(set_strings(strings, size_px=(320, 320))[0]).save(folder / "0.png")
        readings, _ = read_pictures(gather(folder, cases[:1]), cases[:1], read)
        found = score(benchmark.metrics, cases[:1], readings, num_resamples=2)
        scores[name] = {metric: found[metric].value for metric in found}
    recall = {name: row["longtext_recall"] for name, row in scores.items()}
    assert recall == {"right": 1, "case": 1, "order": 1, "extra": 1, "blank": 0}
    right = scores["right"]
    assert right["exact_word_accuracy"] == right["reading_order"] == right["ned"] == 1
    assert right["extra_text_rate"] == 0
    assert scores["case"]["exact_word_accuracy"] == pytest.approx(3 / 6)
    assert scores["order"]["reading_order"] < 1 and scores["order"]["ned"] < 0.7
    assert scores["extra"]["word_precision"] == pytest.approx(6 / 8)
    assert scores["extra"]["extra_text_rate"] > 0.3


def test_kept_typeset_pages_are_a_folder_that_can_be_scored(tmp_path):
    own = np.full((16, 24, 3), 7, np.uint8)
    cases = [*CASES, Case("lost", "", ("𓀀 𓀁 𓀂",)), Case("7_0", "", ("a page of its own",))]
    settings = ControlSettings(page=lambda case: own if case.name == "7_0" else None)
    (tmp_path / "left_over.png").write_text("of another evaluation")
    assert keep_typeset(cases, tmp_path, settings) == 4
    found = gather(tmp_path, cases, missing_ok=True)
    assert names(found) == [["7.png"], ["a-b.png"], ["shop_2.png"], [None], ["7_0.png"]]
    assert found.missing == ("lost",) and len(found.notes) == 1
    np.testing.assert_array_equal(load(found.paths[-1][0]), own)
    for case, (path,) in zip(CASES, found.paths, strict=False):
        np.testing.assert_array_equal(load(path), typeset(case))
