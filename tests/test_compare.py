"""A comparison: its variants are real ones, and each is trained for its budget and shown."""

import json

import pipeline
from configs.compare import decoders, quantizers
from tests.bundles import finish, run_here, start
from train.config import load

VARIANTS = """
CONFIG = "{config}"
COLUMNS = ("word_accuracy", "bits_per_px")
VARIANTS = {{"wide": [], "narrow": ["--config.model.quantizer.num_codes=4"]}}
"""
# As the decoder's and the planner's: nothing in it says how often to evaluate.
CONFIG = """
from configs.tiny import tokenizer

def get_config():
    config = tokenizer.get_config()
    del config.loop["eval_every_steps"]
    return config
"""


def test_every_quantizer_is_a_config_that_builds():
    for changes in quantizers.VARIANTS.values():
        task = pipeline.tokenizer_task(load(quantizers.CONFIG, changes))
        assert task.model.quantizer.num_codes > 0


def test_every_decoder_is_a_config_that_builds():
    found = {
        name: (pipeline.decoder_task(config), pipeline.decoder_press(config))
        for name, config in (
            (name, load(decoders.CONFIG, changes)) for name, changes in decoders.VARIANTS.items()
        )
    }
    for name, (task, press) in found.items():
        assert name.startswith(task.model.objective)
        assert ("depth" in name) == (task.model.head == "depth")
        assert ("locked" in name) == task.model.conditioning.lock_regions
        assert ("guided" in name) == (press.guidance != 1)
        assert ("8 passes" in name) == (press.num_passes == 8)
    assert len(set(map(str, found.values()))) == len(found)


def test_variants_share_a_budget_and_a_table(tmp_path):
    (tmp_path / "quiet.py").write_text(CONFIG)
    (tmp_path / "variants.py").write_text(VARIANTS.format(config=tmp_path / "quiet.py"))
    flags = ("--variants", tmp_path / "variants.py", "--seconds", 1, "--out", tmp_path / "out")
    said = finish(start("compare", *flags))
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(rows) == ["wide", "narrow"]
    assert (
        rows["wide"]["bits_per_px"] == 12 * 3 / 64 and rows["narrow"]["bits_per_px"] == 4 * 3 / 64
    )
    assert all(row["steps"] > 5 for row in rows.values())
    assert "| narrow | " in said and (tmp_path / "out" / "table.md").read_text() in said
    again = run_here("compare", *flags)  # nothing is run twice
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == rows
    assert "step/s" not in again
    said = run_here("compare", *flags, "--only", "high", code=1)
    assert "no variant high; there are wide, narrow" in said
