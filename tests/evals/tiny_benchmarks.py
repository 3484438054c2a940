"""A few cases of every public benchmark, in its own files, for tests of whatever reads them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

from blueprint.typeset import PLAIN_FONT, load_font

WORDS = """
Harvest Market Lantern Bridge Winter Orchard Velvet Copper Meadow Signal Garden Pepper Candle
Thunder Basket Violin Marble Ginger Summit Anchor Falcon Walnut Cobalt Ribbon Temple Zephyr Jasmine
Quartz
""".split()  # noqa: SIM905  # words read better as prose


def written(folder: Path, name: str, content: str) -> None:
    """Writes a file of the folder and the folders above it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def rows(*records) -> str:
    """Records as JSONL."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _longtext(folder: Path) -> None:
    english = (("0", "sign", "short", ["Fresh Bread, Daily", "Open at 7"]),)
    english += (("7", "poster", "long", ["The Winter Market returns", "Bring a warm coat."]),)
    chinese = (
        ("0", "sign", "short", ["每日新鲜", "上午七点"]),
        ("3", "menu", "long", ["冬天集市"]),
    )
    for name, several in (("", english), ("_zh", chinese)):
        records = [
            {
                "category": category,
                "length": length,
                "prompt": f"A page with {texts}",
                "text": texts,
                "text_length": 4,
                "prompt_id": int(number),
            }
            for number, category, length, texts in several
        ]
        written(folder, f"textbench/text_prompts{name}.jsonl", rows(*records))


def _cvtg(folder: Path) -> None:
    words_left = iter(WORDS)
    for half in ("CVTG", "CVTG-Style"):
        for regions in range(2, 6):
            words = [next(words_left) for _ in range(regions)]
            prompt = "A street with " + ", ".join(f"a sign ‘s ‘ '{word}'" for word in words) + "."
            record = {"index": 0, "prompt": prompt, "carrier_list": [], "sentence_list": []}
            written(folder, f"{half}/{regions}.json", json.dumps({"data_list": [record]}))


def _table(folder: Path, name: str, columns: list[str], several: list[list[str]]) -> None:
    written(folder, name, "")
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *several])


def _oneig(folder: Path) -> None:
    # About as long as the real ones, for its score of a blank page falls with the targets' length.
    english = [
        [
            "The Impact of Tea",
            "One leaf, many cups: how a garden on a hill came to warm every kitchen of the port.",
            "Source: Tea Almanac, 2025",
        ],
        [
            'Don\'t "Panic"',
            "Thunder passes by morning, and bridges reopen before the first ferry leaves at seven.",
            "Road Office",
        ],
    ]
    chinese = [
        [
            "茶的影响",
            "一片叶子可以泡出许多杯茶温暖港口每一个厨房让冬天的夜晚不再漫长寒冷孤单",
            "来源：茶叶年鉴二零二五年春季刊",
        ],
        [
            "请勿惊慌",
            "雷雨将在清晨之前过去所有桥梁都会在第一班渡轮七点出发以前重新开放通行",
            "道路管理局公告牌第十二号通知",
        ],
    ]
    for suffix, sheet, column, several in (
        ("", "", "prompt_en", english),
        ("_zh", "-ZH", "prompt_cn", chinese),
    ):
        contents = [
            [str(i), f"{i:03}", f"A slide,\nwith {t}", repr(t)] for i, t in enumerate(several)
        ]
        name = f"scripts/text/text_content{suffix}.csv"
        _table(folder, name, ["", "id", column, "text_content"], contents)
        kinds = [["Portrait", "000", "x", "y"], ["Text_Rendering", "000", "x", "menu"]]
        kinds.append(["Text_Rendering", "001", "x", "graffiti-style text"])
        _table(folder, f"OneIG-Bench{sheet}.csv", ["category", "id", column, "class"], kinds)


def _anytext(folder: Path) -> None:
    def line(text, polygon, *, valid=True):
        return {"text": text, "polygon": polygon, "valid": valid, "language": "x", "pos": 4}

    for name, texts in (
        ("laion_word", ("GRAND Opening", "Sale", "Velvet", "No such")),
        ("wukong_word", ("冬天集市", "每日新鲜", "上午七点", "没有")),
    ):
        first = [
            line(texts[0], [[64, 64], [448, 64], [448, 128], [64, 128]]),
            line(texts[1], [[256, 256], [384, 256], [384, 320], [256, 320]]),
            line(texts[3], [[0, 0], [9, 0], [9, 9]], valid=False),
            line(texts[3], []),
        ]
        slanted = [[100, 100], [300, 200], [275, 250], [75, 150]]
        second = [line(texts[2], [*slanted, [175, 200]])]
        data = [
            {"img_name": "000017.jpg", "caption": "A shop * with *.", "annotations": first},
            {"img_name": "000018.jpg", "caption": "A curtain", "annotations": second},
        ]
        written(folder, f"{name}/test1k.json", json.dumps({"data_root": "", "data_list": data}))


def _lex(folder: Path) -> None:
    for at, (level, key) in enumerate(
        (("easy", "color"), ("medium", "font"), ("hard", "position"))
    ):
        several = [WORDS[at : at + 2], WORDS[at + 4 : at + 6 + at]]
        records = [
            {
                "text": words,
                key: ["red"] * len(words),
                "prompt_idx": f"{i:04}",
                "caption": f"A sign with {words}",
                "enhanced_caption": f"A splendid sign that says {words}",
            }
            for i, words in enumerate(several)
        ]
        written(folder, f"lex_bench_{level}.json", json.dumps(records))


def _tiif(folder: Path) -> None:
    records = [
        {
            "type": "text",
            "short_description": f"A door, with the text on it: {quoted}.",
            "long_description": f"A tall and silent door that says {quoted.upper()}.",
        }
        for quoted in ('"Corporate", "STUDIO", "open"', '"tea", "Cake"')
    ]
    written(folder, "data/test_prompts/text_prompts.jsonl", rows(*records))


def _strict(folder: Path) -> None:
    documents = {
        "en": ("The lantern of the harbour, sold in 1978.", "Orchards grow: slowly, in rows"),
        "fr": ("Né en février à Honfleur",),
        "zh": ("冬天的集市在上午七点开门每日新鲜烘焙",),
    }
    whole = {
        language: [{"rowid": 100 + i, "text": text} for i, text in enumerate(several)]
        for language, several in documents.items()
    }
    written(folder, "text_data/fulldata.json", json.dumps(whole, ensure_ascii=False))


def _glyphcontrol(folder: Path) -> None:
    for bench, ending, prompt in (
        ("SimpleBench", "1_gram", 'A sign that says "{}".'),
        (
            "CreativeBench",
            "prompt_file_GlyphDraw_origin_remove_render_words",
            'The slogan "{}" is on a schoolbag.',
        ),
    ):
        for i, bucket in enumerate(("top_1000", "1000_10000", "10000_100000", "100000_plus")):
            words = WORDS[2 * i : 2 * i + 2]
            name = f"text_prompts/paper/{bench}/all_unigram_{bucket}_100_{ending}.txt"
            written(folder, name, "\n".join(prompt.format(word) for word in words) + "\n\n")


def _bizgen(folder: Path) -> None:
    prompts = (
        (3, "poster", "layout", 'A hero section with "no such text".'),
        (5, "webpage", "text", 'A bar that reads "Why us   Product", below it “Sign up — free”.'),
        (8, "chart", "text", "An axis labelled 'Vote intention (%)' for the year's polls."),
        (9, "slides", "text", "A heading that reads exactly: Nothing is in quotes"),
    )
    records = [
        {"id": i, "domain": domain, "dimension": dimension, "aspect_ratio": "", "prompt": prompt}
        for i, domain, dimension, prompt in prompts
    ]
    written(folder, "assets/bizgeneval.jsonl", rows(*records))


def _mario(folder: Path) -> None:
    collections = ("LAIONEval4000", "OpenLibraryEval500", "TMDBEval500")
    collections += ("ChineseDrawText", "DrawBenchText", "DrawTextCreative")
    for i, name in enumerate(collections):
        prompt = f"A film called '{WORDS[i]} {WORDS[i + 1]}' with '{WORDS[i + 4]}' on it\n"
        written(folder, f"MARIOEval/{name}/{name}.txt", prompt)


def _tokbench(folder: Path) -> None:
    collections = ("ic13", "ic15", "tt", "textocr", "cord", "sroie", "infograph", "docvqa")
    font = load_font(PLAIN_FONT, 56)
    for i, name in enumerate(collections):
        picture = Image.new("RGB", (480, 240), "white")
        draw, words = ImageDraw.Draw(picture), []
        for word, place in ((WORDS[i], (24, 20)), (WORDS[i + 1], (200, 140))):
            draw.text(place, word, "black", font)
            left, top, right, foot = draw.textbbox(place, word, font)
            box = [left - 4, top - 4, right + 4, foot + 4]
            words.append({"bbox": box, "rec": word, "ratio": 0.1})
        record = {"file_name": f"img_{i}.jpg", "width": 480, "height": 240, "annotations": words}
        written(folder, f"annotations/text_{name}.json", json.dumps([record]))
        path = folder / "images" / "text_data" / name / f"img_{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=95)


MAKERS: dict[str, Callable[[Path], None]] = {
    "longtext_en": _longtext,
    "longtext_zh": _longtext,
    "cvtg": _cvtg,
    "oneig_en": _oneig,
    "oneig_zh": _oneig,
    "anytext_en": _anytext,
    "anytext_zh": _anytext,
    "lex": _lex,
    "lex_enhanced": _lex,
    "tiif_short": _tiif,
    "tiif_long": _tiif,
    "strict": _strict,
    "simplebench": _glyphcontrol,
    "creativebench": _glyphcontrol,
    "bizgen_ocr": _bizgen,
    "mario": _mario,
    "tokbench": _tokbench,
    "tokbench_512": _tokbench,
    "tokbench_1024": _tokbench,
}


def make(name: str, folder: Path) -> Path:
    """Writes a tiny benchmark of that name, laid out as its repository is; the folder again."""
    MAKERS[name](folder)
    return folder
