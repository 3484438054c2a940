"""The same code takes pages of 256 px by config alone, from training to a printed page."""

import json

import numpy as np
from PIL import Image

from tests.bundles import finish, run_here, start, training

SIDES = ("--config.data.page.width_px=256", "--config.data.page.height_px=320")
SHORT = ("--config.loop.num_steps=2", "--config.data.num_pages=8")


def test_pages_of_256_px_train_and_print(tmp_path):
    def train(task, *overrides):
        arguments = training(task, tmp_path / task, tmp_path)
        return start("train", *arguments, *SHORT, *overrides)

    planner = train("planner", *SIDES, "--config.model.max_length=1024")
    finish(train("tokenizer", *SIDES))
    codes = ("--out", tmp_path / "codes", "--num-pages", 8)
    run_here("encode", "--tokenizer", tmp_path / "tokenizer", *codes)
    finish(train("decoder", *SIDES, "--config.model.conditioning.max_characters=256"))
    finish(planner)
    flags = ("--bundle", tmp_path, "--out", tmp_path / "page", "--max-retries", 0)
    run_here("draw", 'a notice "Grand Opening" with "K9"', *flags)
    assert np.asarray(Image.open(tmp_path / "page" / "page.png")).shape == (320, 256, 3)
    losses = {}
    for task in ("tokenizer", "planner", "decoder"):
        lines = (tmp_path / task / "metrics.jsonl").read_text().splitlines()
        losses[task] = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    assert all(len(rows) == 2 and np.isfinite(rows).all() for rows in losses.values()), losses
