"""Runs with a text loss: they take their recogniser from its run, remember it, and need it no more
once they are trained."""

import json
import shutil

import jax
import numpy as np
import pytest

import pipeline
from tests.bundles import ROOT
from train import config as configs
from train.checkpoint import CheckpointError, load_weights
from train.config import ConfigError
from train.loop import train


def run(task, workdir, *overrides):
    """Train a tiny config in this process, without its evaluator."""
    config = configs.load(ROOT / "configs" / "tiny" / f"{task}.py", overrides)
    made = pipeline.run(config)
    state = train(made.task, made.dataset, made.loop, workdir)
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    return state


def test_a_tokenizer_remembers_its_recogniser_and_is_read_without_it(tmp_path, monkeypatch):
    devices = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda *_: devices[:1])
    quick = "--config.loop.optimizers.hidden.name=adamw"
    once = ("--config.loop.num_steps=2", "--config.loop.checkpoint.every_steps=1", quick)
    run("recogniser", tmp_path / "0", *once)
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    shutil.rmtree(tmp_path / "1" / "checkpoints" / "2")  # as it was a step before
    flags = [quick, "--config.losses.text_edges=1.0", "--config.losses.text_features=0.5"]
    by = lambda name: (*flags, f"--config.text.recogniser={tmp_path / name}")  # noqa: E731
    workdir = tmp_path / "tokenizer"
    state = run("tokenizer", workdir, *by("0"))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(row["text_edges"] > 0 and row["text_features"] > 0 for row in rows)
    with pytest.raises(CheckpointError, match=r"under another config \(recogniser.weights: '"):
        run("tokenizer", workdir, *by("1"))
    run("tokenizer", workdir, *by("0"))
    weights, extra, _ = load_weights(workdir / "checkpoints")
    assert set(weights) == {"encoder", "decoder"} and not extra
    shutil.rmtree(tmp_path / "0")
    tokenizer = pipeline.load_model(workdir)
    page = np.zeros((1, 128, 128, 3), np.uint8)
    assert tokenizer.probes["decode"](tokenizer.probes["encode"](page)).shape == page.shape


def test_a_run_that_has_no_recogniser_is_named(tmp_path):
    path = ROOT / "configs" / "tiny" / "tokenizer.py"
    flags = ["--config.losses.text_features=1.0", "--config.text.recogniser="]
    with pytest.raises(ConfigError, match=r"needs a run: set config.text.recogniser"):
        pipeline.run(configs.load(path, flags))
    flags[1] += str(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no training run"):
        pipeline.run(configs.load(path, flags))
