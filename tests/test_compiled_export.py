"""Programs that need only JAX, and ONNX: what they give is what the models give."""

import ast
import json
import subprocess
import sys

import numpy as np
import pytest

from pipeline.export.compiled import RUN
from pipeline.export.onnx import export_onnx
from tests.bundles import finish, start, tiny_bundle
from train.export import ExportError


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Made by the script: a batch that is not known fails the annotations that tests check."""
    out = tmp_path_factory.mktemp("compiled") / "out"
    finish(start("export", "--bundle", tiny_bundle(), "--format", "stablehlo", "--out", out))
    return out


def test_the_programs_give_what_the_models_give(compiled):
    parity = json.loads((compiled / "parity.json").read_text())
    found = parity["comparisons"]
    assert parity["ok"] and all(entry["ok"] for entry in found.values())
    assert {name.split(",")[0] for name in found} == {"encode", "decode", "plan", "print"}
    assert found["plan, prompt 2"]["count"] > 5


def test_the_contract_says_shapes_platforms_and_hashes(compiled):
    contract = json.loads((compiled / "contract.json").read_text())
    said = contract["programs"]["decode"]
    assert said["platforms"] == ["cpu", "cuda", "tpu"]
    y, x = contract["token_contract"]["grid"]
    num_codes = contract["token_contract"]["num_codes"]
    assert said["inputs"]["codes"] == ["int32", ["b", str(y), str(x), str(num_codes)]]
    width, height = contract["page_px"]
    printed = contract["programs"]["print"]["outputs"]["pixels"]
    assert printed == ["uint8", ["b", str(height), str(width), "3"]]
    files = {path.name for path in compiled.iterdir()} - {"contract.json", "parity.json"}
    assert contract["sha256"].keys() == files and len(files) == 8


def test_a_short_script_that_imports_only_jax_runs_them(compiled, tmp_path):
    text = RUN.read_text()
    tree = ast.walk(ast.parse(text))
    names = {a.name for node in tree if isinstance(node, ast.Import) for a in node.names}
    assert names == {"json", "sys", "jax", "numpy"} and len(text.splitlines()) <= 30
    contract = json.loads((compiled / "contract.json").read_text())
    height, width = contract["page_px"][::-1]
    np.save(tmp_path / "page.npy", np.full((2, height, width, 3), 255, np.uint8))
    command = [sys.executable, "-I", str(compiled / "run.py"), "encode", "page.npy"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr[-2000:]
    assert told.stdout.strip().startswith("[[[[")


def test_a_tokenizer_becomes_onnx(tmp_path):
    out = tmp_path / "onnx"
    finish(start("export", "--bundle", tiny_bundle(), "--format", "onnx", "--out", out))
    parity = json.loads((out / "parity.json").read_text())
    assert parity["ok"] and len(parity["comparisons"]) == 2
    contract = json.loads((out / "contract.json").read_text())
    assert contract["files"]["encode.onnx"]["pages_at_once"] == "any"
    with pytest.raises(ExportError, match="is a planner: only tokenizers become ONNX"):
        export_onnx(tiny_bundle() / "planner", tmp_path / "no")
    assert not (tmp_path / "no").exists()
