"""The adapters of public benchmarks: what they make of tiny files of each format, what they say of
broken ones, and that their metrics rank right above blank and shuffled."""

import json
import math

import numpy as np
import pytest

from evals.benchmarks import BENCHMARKS, open_benchmark
from evals.benchmarks.anytext import smallest_rectangle
from evals.benchmarks.files import DataError, jsonl, lines, table
from evals.metrics.strict import STRICT
from evals.readers import ReadLine
from evals.scoring import Reading, by_group, score
from tests.evals.tiny_benchmarks import MAKERS, make, rows, written

SIZE_PX = (1000, 1000)
NOT_BY_BLANKS = {  # metrics that a blank page does not lose, for it says nothing false
    "extra_text_rate",
    "reading_order",
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """name -> its tiny cases."""
    return {
        name: BENCHMARKS[name].cases(make(name, tmp_path_factory.mktemp(name))) for name in MAKERS
    }


def said(case, targets, *, crops):
    """A picture that says these strings, a line each."""
    if crops:
        return Reading((), SIZE_PX, crops=tuple(targets)[: len(case.quads)])
    strings = enumerate(targets)
    found = tuple(ReadLine(s, (100.0, 40.0 * i, 800.0, 30.0), 1.0) for i, s in strings)
    return Reading(found, SIZE_PX)


def test_every_benchmark_is_registered_by_its_name_and_says_where_its_data_are():
    assert {name: b.name for name, b in BENCHMARKS.items()} == {n: n for n in BENCHMARKS}
    drawn = {name for name, b in BENCHMARKS.items() if b.redrawn}
    assert drawn == {"pages", "pages-dense", "pages-sizes"} == set(BENCHMARKS) - set(MAKERS)
    assert all(bool(b.where) == (name in MAKERS) for name, b in BENCHMARKS.items())
    assert open_benchmark("cvtg") is BENCHMARKS["cvtg"]
    with pytest.raises(ValueError, match=r"no benchmark 'cvgt'; take one of pages, .*cvtg"):
        open_benchmark("cvgt")


@pytest.mark.parametrize("name", MAKERS)
def test_cases_have_names_prompts_targets_and_groups(opened, name):
    benchmark, cases = BENCHMARKS[name], opened[name]
    assert len({case.name.casefold() for case in cases}) == len(cases)
    for case in cases:
        assert case.targets and all(t.strip() for t in case.targets)
        assert case.groups
        assert case.prompt or case.source
        assert not benchmark.crops or len(case.quads) == len(case.targets)
    for facet, values in by_group(cases).items():
        assert sum(map(len, values.values())) == len(cases), facet


@pytest.mark.parametrize("name", MAKERS)
def test_right_pictures_rank_above_shuffled_and_blank_ones(opened, name):
    benchmark, cases = BENCHMARKS[name], opened[name]
    others = [case for case in cases[1:] + cases[:1]]

    def scores(targets):
        readings = [
            [said(case, t, crops=benchmark.crops)] * 2
            for case, t in zip(cases, targets, strict=True)
        ]
        found = score(benchmark.metrics, cases, readings, num_resamples=20)
        return {key: value.value for key, value in found.items()}

    right = scores([case.targets for case in cases])
    shuffled = scores(
        [
            # A crop holds something wherever a case has a quad.
            [other.targets[i % len(other.targets)] for i in range(len(case.targets))]
            if benchmark.crops
            else other.targets
            for case, other in zip(cases, others, strict=True)
        ]
    )
    blank = scores([("",) * len(case.quads) if benchmark.crops else () for case in cases])
    for metric in benchmark.metrics:
        best, sign = (0.0, -1) if metric.lower_is_better else (1.0, 1)
        assert math.isnan(right[metric.name]) or right[metric.name] == pytest.approx(best), metric
        if metric.name not in NOT_BY_BLANKS:
            assert sign * blank[metric.name] < sign * best - 0.1, metric.name
            assert sign * shuffled[metric.name] < sign * best - 0.1, metric.name
    headline = benchmark.headline
    assert abs(right[headline] - blank[headline]) > 0.5
    assert abs(right[headline] - shuffled[headline]) > 0.5


@pytest.mark.parametrize("name", MAKERS)
def test_strict_metrics_follow_the_published_ones_except_where_only_crops_are_read(name):
    benchmark = BENCHMARKS[name]
    strict = set(STRICT) & set(benchmark.metrics)
    assert strict == (set() if benchmark.crops else set(STRICT))
    ours = [metric in STRICT for metric in benchmark.metrics]
    assert ours == sorted(ours)


@pytest.mark.parametrize("name", MAKERS)
def test_missing_files_are_named_and_where_to_get_them(tmp_path, name):
    benchmark = BENCHMARKS[name]
    for path in (tmp_path, tmp_path / "nowhere", None):
        with pytest.raises(FileNotFoundError, match=r": get it from .*(github|data set)"):
            benchmark.cases(path)


def test_longtext(opened):
    case = opened["longtext_en"][1]
    assert (case.name, case.language) == ("7", "en")
    assert case.targets == ("The Winter Market returns", "Bring a warm coat.")
    assert case.groups == {"category": "poster", "length": "long"}
    assert [c.language for c in opened["longtext_zh"]] == ["zh", "zh"]


def test_cvtg_takes_what_stands_between_single_straight_quotes(opened):
    cases = opened["cvtg"]
    assert [case.name for case in cases[:5]] == [
        *(f"CVTG_{n}_0" for n in range(2, 6)),
        "CVTG-Style_2_0",
    ]
    assert cases[0].targets == ("Harvest", "Market")
    assert [len(case.targets) for case in cases] == [2, 3, 4, 5] * 2
    assert cases[7].groups == {"half": "CVTG-Style", "regions": "5"}


def test_oneig_reads_literals_of_rows_with_breaks_and_joins_their_class(opened, tmp_path):
    cases = opened["oneig_en"]
    assert [case.name for case in cases] == ["000", "001"]
    assert cases[1].targets[0] == 'Don\'t "Panic"'
    assert "\n" in cases[0].prompt
    assert [case.groups for case in cases] == [{"class": "menu"}, {"class": "graffiti-style text"}]
    assert opened["oneig_zh"][0].targets[0] == "茶的影响"
    make("oneig_en", tmp_path)
    (tmp_path / "OneIG-Bench.csv").unlink()
    assert [dict(c.groups) for c in BENCHMARKS["oneig_en"].cases(tmp_path)] == [{}, {}]


def test_anytext_takes_valid_lines_and_the_smallest_rectangles_of_their_polygons(opened):
    first, second = opened["anytext_en"]
    assert (first.name, first.targets) == ("000017", ("GRAND Opening", "Sale"))
    assert first.quads[0] == ((0.125, 0.125), (0.875, 0.125), (0.875, 0.25), (0.125, 0.25))
    assert first.prompt == 'A shop   with, with the text "GRAND Opening", "Sale"'
    assert first.groups == {"lines": "02"}
    slanted = np.array([[100, 100], [300, 200], [275, 250], [75, 150]]) / 512
    np.testing.assert_allclose(second.quads[0], slanted, atol=1e-6)
    assert [c.language for c in opened["anytext_zh"]] == ["zh", "zh"]


def test_anytext_cuts_long_lines_and_keeps_captions_without_any(tmp_path):
    square = [[0, 0], [99, 0], [99, 99], [0, 99]]
    lines = [{"text": "a line of more than twenty letters", "polygon": square}] * 25
    data = [
        {"img_name": "a.jpg", "caption": "x", "annotations": lines},
        {"img_name": "b.jpg", "caption": "y", "annotations": [{**lines[0], "valid": False}]},
    ]
    written(tmp_path, "test1k.json", json.dumps({"data_list": data}))
    many, none = BENCHMARKS["anytext_en"].cases(tmp_path)
    assert many.targets == ("a line of more than ",) * 20
    assert (none.targets, none.quads, none.groups) == ((), (), {"lines": "00"})
    metric = BENCHMARKS["anytext_en"].metrics[0]
    assert metric.measure(none, Reading((), SIZE_PX)) == (0, 0, 0)


@pytest.mark.parametrize("turn", [-80.0, -30.0, 0.0, 10.0, 45.0, 90.0, 200.0])
def test_the_smallest_rectangle_holds_every_point_and_is_no_larger_than_the_true_one(turn):
    angle = np.deg2rad(turn)
    turning = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    inside = np.random.default_rng(0).uniform((0, 0), (80, 20), (9, 2))
    points = np.concatenate([[[0, 0], [80, 0], [80, 20], [0, 20]], inside]) @ turning + 200
    corners = smallest_rectangle(points)
    sides = np.roll(corners, -1, axis=0) - corners
    lengths = np.linalg.norm(sides, axis=1)
    assert lengths[0] * lengths[1] == pytest.approx(1600, rel=1e-6)
    normals = np.stack([-sides[:, 1], sides[:, 0]], axis=-1) / lengths[:, None]
    depths = np.einsum("SPi,Si->SP", points[None] - corners[:, None], normals)
    assert depths.min() > -1e-6  # clockwise, so that inside is right of every side
    assert abs(sides[0, 1]) <= sides[0, 0] + 1e-6  # and the first one leads to the right


def test_lex_reads_the_levels_that_are_there_and_either_caption(opened, tmp_path):
    cases = opened["lex"]
    assert [case.name for case in cases[::2]] == ["easy_0000", "medium_0000", "hard_0000"]
    assert cases[0].groups == {"level": "easy", "words": "02", "attribute": "color"}
    assert cases[0].targets == ("Harvest", "Market")
    assert opened["lex_enhanced"][0].prompt.startswith("A splendid sign")
    record = {"text": ["One"], "caption": "a sign", "enhanced_caption": "b"}
    written(tmp_path, "lex_bench_hard_of_mine.json", json.dumps([record]))
    (case,) = BENCHMARKS["lex"].cases(tmp_path / "lex_bench_hard_of_mine.json")
    assert (case.name, case.groups) == ("hard_0000", {"level": "hard", "words": "01"})
    written(tmp_path, "mine.json", json.dumps([record]))
    with pytest.raises(DataError, match="no level in its name"):
        BENCHMARKS["lex"].cases(tmp_path / "mine.json")


def test_tiif_takes_the_words_of_the_short_version_for_both(opened):
    short, long = opened["tiif_short"], opened["tiif_long"]
    assert [case.name for case in short] == ["0", "1"]
    assert short[0].targets == long[0].targets == ("Corporate", "STUDIO", "open")
    assert long[0].prompt.startswith("A tall and silent door")


def test_strict_documents_begin_at_every_length_they_have(opened):
    cases = {case.name: case for case in opened["strict"]}
    assert cases["en_100_5"].targets == ("The l",)
    assert cases["fr_100_20"].targets == ("Né en février à Honf",)
    assert cases["fr_100_20"].language == "en"
    assert cases["zh_100_10"].language == "zh"
    assert cases["en_100_20"].groups == {"language": "en", "length": "0020"}
    assert "en_100_50" not in cases  # it has 41 characters
    assert all(case.prompt.endswith(case.targets[0]) for case in cases.values())


def test_glyphcontrol_names_words_by_bucket_and_line(opened):
    assert [case.name for case in opened["simplebench"][:3]] == [
        "top_1000_00",
        "top_1000_01",
        "1000_10000_00",
    ]
    assert opened["simplebench"][7].targets == opened["creativebench"][7].targets == ("Copper",)
    assert opened["creativebench"][7].groups == {"frequency": "100000_plus"}


def test_bizgen_has_the_text_prompts_that_quote(opened):
    cases = opened["bizgen_ocr"]
    assert [case.name for case in cases] == ["5", "8"]
    assert cases[0].targets == ("Why us Product", "Sign up — free")
    assert cases[1].targets == ("Vote intention (%)",)
    assert cases[1].groups == {"domain": "chart"}


def test_mario_keeps_prompts_that_quote_nothing(opened, tmp_path):
    first = opened["mario"][0]
    assert (first.name, first.targets) == ("LAIONEval4000_0", ("Harvest Market", "Winter"))
    assert first.groups == {"collection": "LAIONEval4000", "quoted": "yes"}
    make("mario", tmp_path)
    written(tmp_path, "MARIOEval/TMDBEval500/TMDBEval500.txt", "a film\r\ncalled 'Up'\n")
    found = {case.name: case for case in BENCHMARKS["mario"].cases(tmp_path)}
    silent = found["TMDBEval500_0"]
    assert (silent.prompt, silent.targets, silent.groups["quoted"]) == ("a film", (), "no")
    assert found["TMDBEval500_1"].targets == ("Up",)
    f1 = BENCHMARKS["mario"].metrics[0]
    assert list(f1.measure(silent, Reading((), SIZE_PX)))[3] == 1  # it counts as a picture


def test_tokbench_begins_with_pictures_and_places_words_in_shares(opened):
    case = opened["tokbench"][0]
    assert (case.name, case.targets) == ("ic13_img_0", ("Harvest", "Market"))
    assert case.source is not None and case.source.is_file()
    (left, top), (right, _), _, (_, foot) = case.quads[0]
    assert 0 < left < right < 1 and 0 < top < foot < 1
    assert case.quads[0][1] == (right, top)
    assert BENCHMARKS["tokbench_512"].headline != BENCHMARKS["tokbench"].headline


BROKEN = {
    "longtext_en": ("textbench/text_prompts.jsonl", '{"prompt_id": 0}\n', "line 1 has no `prompt`"),
    "longtext_zh": (
        "textbench/text_prompts_zh.jsonl",
        rows({"prompt_id": 0, "prompt": "x", "text": ["a", " "]}),
        "line 1 has a `text` that is not a list of texts",
    ),
    "cvtg": (
        "CVTG/3.json",
        json.dumps({"data_list": [{"index": 0, "prompt": "nothing in 'quotes"}]}),
        "data_list 0 has a `prompt` with nothing between single quotes",
    ),
    "oneig_en": (
        "scripts/text/text_content.csv",
        "id,prompt_en,text_content\n000,x,oops\n",
        "row 0 has a `text_content` that is not a list of texts",
    ),
    "oneig_zh": ("scripts/text/text_content_zh.csv", "id,prompt_en\n", "no column `prompt_cn`"),
    "anytext_en": (
        "laion_word/test1k.json",
        json.dumps(
            {
                "data_list": [
                    {
                        "img_name": "a.jpg",
                        "caption": "x",
                        "annotations": [{"text": "y", "polygon": [[0, 0], [1]]}],
                    }
                ]
            }
        ),
        "data_list 0, annotations 0 has a `polygon` that is not a list of at least three points",
    ),
    "anytext_zh": ("wukong_word/test1k.json", "[]", "is no record with fields"),
    "lex": ("lex_bench_easy.json", "{}", "is no list of records"),
    "lex_enhanced": (
        "lex_bench_medium.json",
        json.dumps([{"text": ["a"], "caption": "x"}]),
        "record 0 has no `enhanced_caption`",
    ),
    "tiif_short": (
        "data/test_prompts/text_prompts.jsonl",
        rows({"short_description": 'with ""', "long_description": "x"}),
        "quotes nothing",
    ),
    "tiif_long": ("data/test_prompts/text_prompts.jsonl", "\n{oops\n", "line 2 is no JSON"),
    "strict": ("text_data/fulldata.json", '{"de": []}', "has a language 'de' that is not en"),
    "simplebench": (
        "text_prompts/paper/SimpleBench/all_unigram_top_1000_100_1_gram.txt",
        'A "sign"\nand none\n',
        "line 2 quotes no word",
    ),
    "bizgen_ocr": ("assets/bizgeneval.jsonl", "", "has no records"),
    "mario": ("MARIOEval/DrawBenchText/DrawBenchText.txt", "\na 'b'\n", "line 1 has a `prompt`"),
    "tokbench": (
        "annotations/text_tt.json",
        json.dumps([{"file_name": "a", "width": 9, "height": 9, "annotations": []}]),
        "record 0 has no words",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_errors_of_one_sentence_that_names_the_place(tmp_path, name):
    make(name, tmp_path)
    file, content, complaint = BROKEN[name]
    written(tmp_path, file, content)
    with pytest.raises(DataError) as caught:
        BENCHMARKS[name].cases(tmp_path)
    assert complaint in str(caught.value)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tokbench_says_which_box_or_picture_is_missing(tmp_path):
    make("tokbench", tmp_path)
    word = {"rec": "a", "bbox": [4, 4, 4, 9]}
    record = {"file_name": "img_0.jpg", "width": 9, "height": 9, "annotations": [word]}
    written(tmp_path, "annotations/text_ic13.json", json.dumps([record]))
    with pytest.raises(DataError, match=r"record 0, annotations 0 has a `bbox` that is not \[left"):
        BENCHMARKS["tokbench"].cases(tmp_path)
    written(tmp_path, "annotations/text_ic13.json", json.dumps([record | {"file_name": "b.jpg"}]))
    with pytest.raises(FileNotFoundError, match=r"there is no .*ic13.b\.jpg: get the pictures"):
        BENCHMARKS["tokbench"].cases(tmp_path)


def test_two_records_of_one_name_are_an_error_where_capitals_do_not_matter(tmp_path):
    record = {"text": ["a"], "caption": "x"}
    several = [record | {"prompt_idx": "A1"}, record | {"prompt_idx": "a1"}]
    written(tmp_path, "lex_bench_easy.json", json.dumps(several))
    with pytest.raises(DataError, match="two records called 'easy_a1'"):
        BENCHMARKS["lex"].cases(tmp_path)


def test_a_benchmark_of_several_files_wants_their_folder(tmp_path):
    make("cvtg", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"2\.json is a file: give the folder that has CVTG"
    ):
        BENCHMARKS["cvtg"].cases(tmp_path / "CVTG" / "2.json")


def test_files_of_other_bytes_breaks_and_marks(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\xff\xfe{")
    for read in (jsonl, lines, lambda p: table(p, ())):
        with pytest.raises(DataError, match="is not UTF-8 text"):
            read(path)
    path.write_text('\ufeff{"a": "one\u2028two"}\n\n{"a": "3"}\n', encoding="utf-8")
    assert [record.string("a") for record in jsonl(path)] == ["one\u2028two", "3"]
    assert [record.place for record in jsonl(path)] == [f"{path}, line 1", f"{path}, line 3"]
