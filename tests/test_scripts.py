"""What a person runs, on a tiny bundle: draw, redraw, evaluate; and errors that name the thing."""

import dataclasses
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blueprint.formats import from_json
from blueprint.schema import Box
from evals.benchmarks import pages
from evals.evaluation import LEGIBLE_STAGES
from evals.results import load, to_json
from evals.sums import load as load_sums
from pipeline import Bundle
from tests.bundles import ROOT, finish, run_here, start, tiny_bundle, training
from tests.evals.samples import made
from tests.evals.tiny_benchmarks import make
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import plan

PROMPT = 'Flyer for our club night: "Moon Jazz" up top, then "FRI 9pm" and a button "Get in"'


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    finish(start("draw", PROMPT, "--bundle", tiny_bundle(), "--out", folder, "--max-retries", 1))
    return folder


def test_draw_writes_a_valid_blueprint_with_the_quoted_words(drawn):
    blueprint = from_json((drawn / "blueprint.json").read_text())
    quoted = [t.string for t in blueprint.texts if t.source == "verbatim"]
    assert quoted == ["Moon Jazz", "FRI 9pm", "Get in"]
    page = np.asarray(Image.open(drawn / "page.png"))
    assert page.shape == (128, 128, 3) and page.std() > 1
    assert (drawn / "blueprint.svg").read_text().startswith("<svg")
    proof = json.loads((drawn / "proof.json").read_text())
    assert len(proof["lost"]) == len(list(blueprint.texts)) and proof["retries"] in (0, 1)


def test_an_edited_blueprint_redraws_and_a_broken_one_names_the_field(drawn, tmp_path):
    edited = json.loads((drawn / "blueprint.json").read_text())
    texts = [e for e in edited["elements"] if e["type"] == "text"]
    texts[0]["lines"] = ["Sun", "Jazz"]
    (tmp_path / "edited.json").write_text(json.dumps(edited))
    flags = ("--bundle", tiny_bundle(), "--out", tmp_path, "--max-retries", 0)
    results = dataclasses.replace(made(), type_floors_px=dict.fromkeys(LEGIBLE_STAGES, 99.0))
    (tmp_path / "scores.json").write_text(to_json(results))
    edition = ("--blueprint", tmp_path / "edited.json", "--scores", tmp_path / "scores.json")
    assert "size_milli" in run_here("draw", *flags, *edition).split("legibility: ", 1)[1]
    again = from_json((tmp_path / "blueprint.json").read_text())
    assert "Sun Jazz" in [t.string for t in again.texts]
    at = edited["elements"].index(texts[0])
    texts[0]["box"]["width"] = 4000
    (tmp_path / "broken.json").write_text(json.dumps(edited))
    said = run_here("draw", *flags, "--blueprint", tmp_path / "broken.json", code=1)
    assert f"elements[{at}].box.width: 4000 is not a whole number" in said
    assert "Traceback" not in said


def test_wishes_reach_the_plan(tmp_path):
    wishes = {"palette": ["#fff", "#124"], "boxes": {"Moon Jazz": [50, 60, 800, 300]}}
    (tmp_path / "wishes.json").write_text(json.dumps(wishes))
    flags = ("--bundle", tiny_bundle(), "--out", tmp_path, "--max-retries", 0, "--num-tries", 2)
    run_here("draw", PROMPT, *flags, "--wishes", tmp_path / "wishes.json")
    blueprint = from_json((tmp_path / "blueprint.json").read_text())
    placed = {t.string: t for t in blueprint.texts}
    assert placed["Moon Jazz"].box == Box(50, 60, 800, 300)
    assert {t.colour for t in placed.values()} <= {"#fff", "#124"}


def test_a_file_of_prompts_is_drawn_page_by_page_and_gone_on_with(tmp_path):
    prompts = [PROMPT, 'A card that says "Hello"', 'a sign "No 7"']
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n\n")
    out, flags = tmp_path / "out", ("--bundle", tiny_bundle(), "--max-retries", 0, "--batch", 2)
    asked = ("draw", "--prompts", tmp_path / "prompts.txt", "--out", out, *flags)
    assert "3 pages in" in run_here(*asked)
    rows = [json.loads(line) for line in (out / "drawn.jsonl").read_text().splitlines()]
    assert sorted(row["number"] for row in rows) == [0, 1, 2]
    for number, words in enumerate((["Moon Jazz", "FRI 9pm", "Get in"], ["Hello"], ["No 7"])):
        blueprint = from_json((out / f"{number:05d}" / "blueprint.json").read_text())
        assert [t.string for t in blueprint.texts if t.source == "verbatim"] == words
    first = (out / "00001" / "page.png").read_bytes()
    kept = [json.dumps(row) + "\n" for row in rows if row["number"] != 1]
    (out / "drawn.jsonl").write_text("".join(kept) + '{"number": 1, "pro')  # as if it was killed
    (out / "00001" / "page.png").unlink()
    assert "1 pages in" in run_here(*asked)
    assert (out / "00001" / "page.png").read_bytes() == first
    said = run_here(*asked, "--seed", 1, code=1)
    assert "has page" in said and "give another --out" in said and "Traceback" not in said


def test_evaluate_scores_four_stages_and_their_controls(tmp_path):
    out = tmp_path / "pages"
    said = run_here("evaluate", "--bundle", tiny_bundle(), "--n", 3, "--out", out)
    results = load(out / "scores.json")
    assert list(results.stages) == ["typeset", "reconstructed", "given_blueprint", "end_to_end"]
    assert results.stages["typeset"]["exact_word_accuracy"].value > 0.8
    assert results.plans["copy_fidelity"].value == results.plans["valid"].value == 1.0
    assert results.controls["blank"]["exact_word_accuracy"].value == 0.0
    assert str(out / "index.html") in said and len(load_sums(out / "cases.jsonl").names) == 3
    assert results.headline == "word_f1" and list(results.control_notes) == list(results.controls)
    assert "tokenizer alone" in results.control_notes["copied"].said
    assert np.asarray(Image.open(out / "sheet.png")).shape[2] == 3


def test_a_watched_run_is_scored_and_learns_its_least_legible_type(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    for name in ("tokenizer", "planner", "decoder"):
        (run / name).symlink_to(tiny_bundle() / name)
    words = {
        word for case in pages.cases(3, split="sizes") for t in case.targets for word in t.split()
    }
    program = tmp_path / "reader"  # reads all their words on every page: each size is legible
    lines = "".join(json.dumps({"text": word}) + "\n" for word in sorted(words))
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}END\n")
    program.chmod(0o755)
    flags = ("--watch", run, "--benchmark", "pages-sizes", "--n", 3, "--out", out)
    process = start("evaluate", *flags, "--reader", f"command:{program}")
    while process.poll() is None and not (out / "scores.jsonl").is_file():
        time.sleep(0.1)
    process.terminate()
    process.communicate()
    bundle = Bundle(run)
    (row,) = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert row["steps"] == list(bundle.steps) and row["stages/end_to_end/exact_word_accuracy"] == 1
    assert load(Path(row["folder"]) / "scores.json").num_cases == 3
    smallest = min(word.type_px for case in pages.cases(3, split="sizes") for word in case.words)
    assert bundle.legible_px == smallest
    told = json.loads((run / "legibility.json").read_text())
    assert told["weights"] == bundle.weights and told["num_cases"] == 3


def test_anybodys_pictures_are_scored_and_none_leaves_the_denominator(tmp_path):
    data, images, out = tmp_path / "data", tmp_path / "images", tmp_path / "out"
    flags = ("--benchmark", "cvtg", "--data", make("cvtg", data), "--out", out)
    run_here("evaluate", *flags, "--prompts", tmp_path / "prompts.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert len(rows) == 8 and {row["images"] for row in rows} == {1}
    images.mkdir()
    for row in rows[1:]:
        Image.new("RGB", (64, 64), "white").save(images / f"{row['name']}.png")
    word = re.findall(r"'(\w+)'", rows[1]["prompt"])[0]
    program = tmp_path / "reader"  # reads one word of one prompt on every picture
    program.write_text(f"""#!/bin/sh\necho '{{"text": "{word}"}}'\n""")
    program.chmod(0o755)
    flags += ("--images", images, "--reader", f"command:{program}")
    said = run_here("evaluate", *flags, code=1)
    assert f"missing pictures (1 of 8): {rows[0]['name']}" in said and "Traceback" not in said
    run_here("evaluate", *flags, "--missing-ok", "--json", tmp_path / "copy.json")
    results = load(tmp_path / "copy.json")
    assert results.missing == (rows[0]["name"],)
    assert results.num_pictures == results.num_cases == 8
    assert results.metrics["cvtg_word_accuracy"].value == pytest.approx(1 / 28)
    assert results.controls["typeset"]["cvtg_word_accuracy"].value == pytest.approx(1 / 28)
    assert results.metrics["word_precision"].value == pytest.approx(1 / 7)
    assert (out / "index.html").is_file()


def test_a_causal_decoder_prints_through_the_same_door(tmp_path):
    bundle = tiny_bundle()
    for name in ("planner", "tokenizer"):
        (tmp_path / name).symlink_to(bundle / name)
    flags = {
        "model.objective": "causal", "model.conditioning.lock_regions": True, "model.dropout": 0.1,
        "model.remat": "dots", "drop_glyphs": 0.5, "loop.num_steps": 1,
    }  # fmt: skip
    told = [f"--config.{name}={value}" for name, value in flags.items()]
    finish(start("train", *training("decoder", tmp_path / "decoder", bundle), *told))
    models, pages = Bundle(tmp_path), [plan(seed, PageStyle(128, 128))[1] for seed in (1, 2)]
    whole = models.codes(pages)
    assert whole.shape == (2, 16, 16, 12) and whole.max() < 8
    masked = np.zeros((2, 16, 16), bool)
    masked[:, 5:7, 3:9] = True
    np.testing.assert_array_equal(models.codes(pages, known=whole, masked=masked), whole)
    other = (whole + 1) % 8
    again = models.codes(pages, known=other, masked=masked, guidance=1.5)
    np.testing.assert_array_equal(again[~masked], other[~masked])
    with pytest.raises(ValueError, match=r"guidance 2\.0 needs a decoder trained with drop_bl"):
        Bundle(bundle).codes(pages, guidance=2.0)


def test_a_foreign_tokenizer_is_refused(tmp_path):
    bundle = tiny_bundle()
    for name in ("planner", "decoder"):
        (tmp_path / name).symlink_to(bundle / name)
    config = ROOT / "configs/tiny/tokenizer.py"
    other = ("--config", config, "--workdir", tmp_path / "tokenizer", "--config.loop.seed=9")
    finish(start("train", *other, "--config.loop.num_steps=1"))
    flags = ("--bundle", tmp_path, "--out", tmp_path / "page")
    said = run_here("draw", 'a "K9"', *flags, code=1)
    assert "holds codes of another tokenizer (weights:" in said


def test_mistakes_are_told_in_one_sentence(tmp_path):
    cases = [
        (("draw", "--bundle", tmp_path, "--out", tmp_path), "give one of: a prompt, a blueprint"),
        (("draw", "x", "--bundle", tmp_path, "--out", tmp_path), "is no training run"),
        (("encode", "--tokenizer", tmp_path, "--out", tmp_path), "is no training run"),
        (("encode", "--verify", "--out", tmp_path), "holds no finished code cache"),
        (("train", "--config", "none.py", "--workdir", tmp_path), "there is no config file none"),
    ]
    for arguments, message in cases:
        said = run_here(*arguments, code=1)
        assert message in said and "Traceback" not in said


def test_a_contact_sheet_shows_its_pages(tmp_path):
    run_here("contact_sheet", "--out", tmp_path / "sheet.png", "--num-pages", 7)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[1] == 6 * 264 and sheet.shape[0] > 2 * 256
    assert (sheet[4:260, 4:260] != 255).any() and (sheet[-264:, 264:] == 255).all()
