"""The tokenizer's two halves as ONNX, for browsers and other runtimes: `encode.onnx` and
`decode.onnx`, converted by jax2onnx and compared in ONNX Runtime.

Pages may come in any number where the converter manages that, and one at a time elsewhere (jax2onnx
0.13 cannot take a remainder under an unknown batch, which the levels of FSQ need); `contract.json`
says which. Planner and decoder stay out: their loops hold caches that a step updates in place, and
ONNX has no such loop; take the programs of `pipeline.export.compiled`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from layers.kernels import use_kernel
from pipeline.export.compiled import Program, bound, weights_of
from pipeline.tasks import load_model, token_contract
from tokenizer.task import TokenizerTask
from train.config import build
from train.data.sources import DataConfig, Pages
from train.export import ExportError, Parity
from train.export.tensors import fresh_folder
from train.model import Model

HALVES = {"encode": ("pixels", "codes"), "decode": ("codes", "pixels")}
ANY = "B"


def _converter() -> Callable[..., Any]:
    try:
        from jax2onnx import to_onnx
    except ImportError as problem:
        raise ExportError(
            f"ONNX needs jax2onnx ({problem}): pip install -c constraints.txt '.[onnx]'"
        ) from problem
    return to_onnx


def _convert(tokenizer: Model, half: str, example: np.ndarray, path: Path) -> str:
    """Write one half; "any" or "1": how many pages it takes at once."""
    to_onnx, (given, _) = _converter(), HALVES[half]
    program = Program(("tokenizer",), lambda p, x: p["tokenizer"][half](x), {given: example}, ())
    models = {"tokenizer": tokenizer}
    weights = {"tokenizer": {n: np.asarray(x) for n, x in weights_of(tokenizer).items()}}
    run = bound(models, program)
    how = {"model_name": half, "input_names": [given], "return_mode": "file"}
    for size, said in ((ANY, "any"), (1, "1")):
        shape = jax.ShapeDtypeStruct((size, *example.shape[1:]), example.dtype)  # type: ignore[arg-type]  # a letter is a size that is not known
        try:
            with use_kernel("xla"):
                to_onnx(lambda x: run(weights, x), inputs=[shape], output_path=str(path), **how)
            return said
        except Exception as problem:  # the converter raises whatever its plug-ins do
            if size == 1:
                raise ExportError(f"jax2onnx cannot convert {half} ({problem})") from problem
    raise AssertionError("unreachable")


def export_onnx(source: Path, out: Path, *, parity: bool = True) -> Parity:
    """Write a tokenizer's run, or that of a bundle, into the new folder `out`, with `contract.json`
    and `parity.json`. Raises `ExportError` without the extra `onnx`, for a run that is no
    tokenizer's, and where the converter gives up."""
    source = Path(source)
    tokenizer = load_model(source / "tokenizer" if (source / "tokenizer").is_dir() else source)
    if not isinstance(tokenizer.task, TokenizerTask):
        raise ExportError(f"{source} is a {tokenizer.config.task}: only tokenizers become ONNX")
    page = build(DataConfig, tokenizer.config.data, path="config.data").page
    drawn = Pages(page, 3)
    pixels = np.stack([drawn[i]["pixels"] for i in range(3)])
    codes = np.asarray(tokenizer.probes["encode"](pixels))
    examples = {"encode": pixels, "decode": codes}
    with fresh_folder(out) as folder:
        batches = {half: _convert(tokenizer, half, x, folder / f"{half}.onnx")
                   for half, x in examples.items()}  # fmt: skip
        contract = {
            "token_contract": token_contract(tokenizer), "page_px": [page.width_px, page.height_px],
            "files": {f"{half}.onnx": {
                "input": HALVES[half][0], "output": HALVES[half][1], "pages_at_once": batches[half],
                "shape": [batches[half], *map(str, x.shape[1:])], "dtype": str(x.dtype),
                "sha256": hashlib.sha256((folder / f"{half}.onnx").read_bytes()).hexdigest(),
            } for half, x in examples.items()},
        }  # fmt: skip
        (folder / "contract.json").write_text(json.dumps(contract, indent=1) + "\n")
        found = Parity("onnxruntime")
        if parity:
            _compare(tokenizer, folder, examples, batches, found)
        else:
            found.skipped = "--no-parity"
        found.write(folder / "parity.json")
    return found


def _compare(
    tokenizer: Model,
    folder: Path,
    examples: dict[str, np.ndarray],
    batches: dict[str, str],
    found: Parity,
) -> None:
    import onnxruntime

    found.versus = f"onnxruntime {onnxruntime.__version__}"
    for half, x in examples.items():
        own = np.asarray(tokenizer.probes[half](x))
        session = onnxruntime.InferenceSession(str(folder / f"{half}.onnx"))
        parts = [x] if batches[half] == "any" else [x[i : i + 1] for i in range(len(x))]
        theirs = np.concatenate([session.run(None, {HALVES[half][0]: part})[0] for part in parts])
        if half == "encode":
            found.ids("encode, drawn pages", own, theirs)
        else:
            found.numbers("decode, drawn pages (levels of 255)", own, theirs, tolerance=1)
