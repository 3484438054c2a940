"""An exported bundle prints what its runs print, says what it is, and carries what it needs."""

import json
import os
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from tokenizers import Tokenizer, models

import pipeline
from blueprint.reading import PromptReader
from evals.least_type import FILE as LEAST_TYPE
from evals.least_type import LeastType, keep
from pipeline.export.bundle import export_bundle
from pipeline.sealed import MODELS, require_readable
from pipeline.tasks import task_of
from tests.bundles import finish, run_here, start, training
from tests.evals.samples import made
from tests.spoiling import WEIGHTS, exported, largest, nan_in, runs
from train.checkpoint import load_weights
from train.data.codes import ContractError
from train.export import ExportError, seal
from train.export.folder import model_arrays, open_run, open_weights, write_weights


def test_the_export_prints_what_the_runs_print(tmp_path):
    folder, source = tmp_path / "bundle", runs()
    parity = export_bundle(source, folder)
    assert parity.ok and set(parity.found) == {
        *(f"{name}, every array" for name in MODELS), "blueprints of held-out prompts",
        "codes of their pages", "pixels of their pages",
    }  # fmt: skip
    assert all(entry.get("equal", 1.0) == 1.0 for entry in parity.found.values())
    assert parity.found["codes of their pages"]["count"] == 2 * 16 * 16 * 12
    assert json.loads((folder / "parity.json").read_text())["ok"]
    bundle, own = pipeline.load(folder), pipeline.Bundle(source)
    assert bundle.contract == own.contract == bundle.said["token_contract"]
    assert bundle.weights == own.weights and bundle.steps == (6, 6, 6)
    assert bundle.planner.weight_hash == own.planner.weight_hash
    assert bundle.legible_px == 14.0
    pictures = ("pictures/blueprint.png", "pictures/page.png")
    card = (folder / "README.md").read_text()
    for picture in pictures:
        assert f"]({picture})" in card and picture in bundle.said["files"]
        assert np.asarray(Image.open(folder / picture)).std() > 1


def test_the_folder_is_sharded_and_holds_no_optimizer_and_no_code():
    folder = exported()
    names = set(seal.read(folder)["files"])
    assert names == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {
        seal.NAME
    }
    assert {Path(name).suffix for name in names} == {".json", ".md", ".safetensors"}
    shards = {name for name in names if name.startswith("tokenizer/weights/model-")}
    assert len(shards) == 2 and f"planner/{WEIGHTS}" in names
    arrays = open_weights(folder / "decoder")[0]
    assert {name.split("/")[0] for name in arrays} <= {"params", "extra"}


def test_the_card_says_scores_with_controls():
    folder = exported()
    card = (folder / "README.md").read_text()
    results = made()
    score = results.metrics[results.headline]
    (row,) = [line for line in card.splitlines() if line.startswith("| exact words |")]
    assert f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]" in row
    assert row.count("|") == 3 + len(results.controls)
    for part in ("| decoder |", "pipeline.load", "Apache License 2.0", "16 procedural pages"):
        assert part in card
    told = seal.read(folder)
    assert told["scores"]["pages"]["value"] == score.value and not told["scores"]["pages"]["older"]
    assert f"{sum(m['num_parameters'] for m in told['models'].values()):,} parameters" in card


def test_what_is_measured_of_a_bundle_stays_outside_of_it():
    found = LeastType(9.0, pipeline.load(exported()).weights, "pages-sizes", 99, {}, "")
    assert "is sealed and stays as it is" in keep(exported(), found)
    require_readable(exported())


def test_bfloat16_keeps_the_contract_and_is_half_as_large(tmp_path):
    os.utime(runs() / "pages" / "scores.json", (1, 1))
    parity = export_bundle(runs(), tmp_path / "half", dtype="bfloat16", parity=False)
    assert parity.ok and "decoder, every array after rounding to bfloat16" in parity.found
    sizes = [(f / "planner" / WEIGHTS).stat().st_size for f in (tmp_path / "half", exported())]
    assert 0.5 < sizes[0] / sizes[1] < 0.56
    half, whole = pipeline.load(tmp_path / "half"), pipeline.load(exported())
    assert half.said["dtype"] == "bfloat16" and half.contract == whole.contract
    for ours, theirs in ((half.planner, whole.planner), (half.decoder, whole.decoder)):
        pairs = zip(jax.tree.leaves(ours.weights), jax.tree.leaves(theirs.weights), strict=True)
        for rounded, full in pairs:
            assert rounded.dtype == full.dtype
            again = np.asarray(full).astype(ml_dtypes.bfloat16).astype(full.dtype)
            np.testing.assert_array_equal(rounded, again)
    assert half.legible_px is None and not (tmp_path / "half" / LEAST_TYPE).exists()
    card = (tmp_path / "half" / "README.md").read_text()
    for said in ("were rounded to bfloat16", "Measured before rounding", "older than the weights"):
        assert said in card


def _of_weights(folder, *, planner=None, decoder=None):
    """The runs as folders with `weights/`, changed, for what a run can be that ours are not."""
    for name, change in (("tokenizer", None), ("planner", planner), ("decoder", decoder)):
        if change is None:
            (folder / name).symlink_to(runs() / name)
            continue
        config = json.loads((runs() / name / "config.json").read_text())
        with open_run(runs() / name) as (found, noted):
            arrays = {key: np.asarray(stored[...]) for key, stored in found.items()}
            identity = dict(noted["identity"])
        change(config, identity, arrays)
        shapes = {key: (array.dtype, array.shape) for key, array in arrays.items()}
        with write_weights(folder / name, shapes, {"step": 6, "identity": identity}) as writer:
            for key, array in arrays.items():
                writer.put(key, array)
        (folder / name / "config.json").write_text(json.dumps(config))
    return folder


def test_what_is_not_finite_is_refused_or_allowed_and_told(tmp_path, caplog):
    def spoil(config, identity, arrays):
        arrays[largest(arrays)] = nan_in(arrays[largest(arrays)])

    folder = tmp_path / "runs"
    folder.mkdir()
    _of_weights(folder, decoder=spoil)
    with pytest.raises(ExportError, match=r"params/.* of .*decoder holds numbers .*--allow-nan"):
        export_bundle(folder, tmp_path / "out", parity=False)
    assert not (tmp_path / "out").exists()
    export_bundle(folder, tmp_path / "out", parity=False, allow_nan=True)
    assert "**Not finite:** params/" in (tmp_path / "out" / "README.md").read_text()
    with caplog.at_level("WARNING"):
        pipeline.load(tmp_path / "out")
    assert "decoder/weights holds numbers that are not finite" in caplog.text


def test_models_that_do_not_fit_together_are_not_exported(tmp_path):
    other = lambda config, identity, arrays: identity.update(  # noqa: E731
        contract={**identity["contract"], "weights": "other"}
    )
    _of_weights(tmp_path, decoder=other)
    with pytest.raises(ContractError, match="decoder holds codes of another tokenizer"):
        export_bundle(tmp_path, tmp_path / "out")
    with pytest.raises(ExportError, match="no dtype 'int8': give float32 or bfloat16"):
        export_bundle(tmp_path, tmp_path / "out", dtype="int8")
    (tmp_path / "planner").unlink()
    with pytest.raises(FileNotFoundError, match="planner is no training run"):
        export_bundle(tmp_path, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"is no bundle: it has no bundle.json"):
        pipeline.load(tmp_path)


def test_the_file_that_prompts_are_read_by_travels(tmp_path, monkeypatch):
    pieces = Tokenizer(models.WordLevel({"a": 0, "sign": 1}, unk_token="a"))
    pieces.save(str(tmp_path / "pieces.json"))
    reader = PromptReader(str(tmp_path / "pieces.json"))

    def learn(config, identity, arrays):
        config["data"]["prompt_tokenizer"] = "pieces.json"
        config["model"]["prompt_vocab_size"] = 2
        identity["prompt_tokenizer"] = reader.identity
        for name, (dtype, shape) in model_arrays(task_of(ConfigDict(config))).items():
            arrays.setdefault(name, np.ones(shape, dtype))

    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    export_bundle(_of_weights(folder, planner=learn), tmp_path / "out", parity=False)
    (tmp_path / "pieces.json").unlink()
    monkeypatch.chdir(tmp_path / "runs")
    bundle = pipeline.load(tmp_path / "out")
    used = bundle.planner.config.data.prompt_tokenizer
    assert used == str(tmp_path / "out/planner/tokenizer.json")
    assert PromptReader(used).identity == reader.identity
    config = ConfigDict(json.loads((tmp_path / "out/planner/config.json").read_text()))
    assert config.data.prompt_tokenizer == "tokenizer.json"


def test_the_scripts_take_a_bundle_where_they_take_runs(tmp_path):
    folder, workdir = exported(), tmp_path / "planner"
    begun = start(
        "train", *training("planner", workdir, folder), f"--config.init={folder / 'planner'}"
    )
    run_here("draw", "a sign", "--bundle", folder, "--out", tmp_path, "--max-retries", 0)
    assert np.asarray(Image.open(tmp_path / "page.png")).shape == (128, 128, 3)
    codes = ("--out", tmp_path / "codes", "--num-pages", 2)
    run_here("encode", "--tokenizer", folder / "tokenizer", *codes)
    header = json.loads((tmp_path / "codes/cache.json").read_text())
    assert header["contract"] == seal.read(folder)["token_contract"]
    finish(begun)
    weights, _, noted = load_weights(workdir / "checkpoints")
    assert noted["init"] == noted["config"]["init"] == str(folder / "planner")
    assert len(noted["identity"]["init"]) == 64 and noted["step"] == 6
    first = pipeline.load_model(folder / "planner").weights["embed"]["table"]
    assert 0 < np.abs(weights["embed"]["table"] - first).max() < 0.5 * np.std(first)
    said = finish(start("train", *training("planner", folder / "planner", folder)), code=1)
    assert "is part of an exported bundle and stays as it is: give another --workdir" in said
    watched = ("--watch", folder, "--out", tmp_path / "pages")
    said = run_here("evaluate", *watched, code=1)
    assert "is an exported bundle and never changes: give --bundle" in said
    require_readable(folder)
