"""The durable artifact: three models in one sealed folder of safetensors and JSON, printed from
before it is said to be done."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from blueprint.formats import to_json
from blueprint.plan import to_pixels
from blueprint.schema import Blueprint
from evals.least_type import FILE as LEAST_TYPE
from evals.results import Results
from evals.results import load as load_results
from pipeline.bundle import Bundle
from pipeline.export.card import write_card
from pipeline.export.family import DTYPES
from pipeline.sealed import MODELS, TOKENIZER_FILE, language, prompt_file, read_config
from pipeline.tasks import load_model, task_of, token_contract
from train.checkpoint.manifest import git_revision, hash_of, versions
from train.config import build
from train.data.codes import require_same
from train.data.sources import DataConfig, Plans, heldout
from train.export import ExportError, Parity, Stored, seal
from train.export.fitting import is_finite, is_float, misfits, shown
from train.export.folder import model_arrays, open_run, open_weights, write_weights
from train.export.tensors import SHARD_BYTES, fresh_folder

_OF_TRAINING = (  # what a run's manifest says that a reader of its weights may ask
    "step", "identity", "identity_hash", "metrics", "config", "config_hash", "token_contract",
    "git_revision", "versions", "time", "imported",
)  # fmt: skip
_NUM_SHOWN = 2  # prompts that are printed from both


def export_bundle(
    source: Path,
    out: Path,
    *,
    dtype: str = "float32",
    shard_bytes: int = SHARD_BYTES,
    allow_nan: bool = False,
    parity: bool = True,
) -> Parity:
    """Seal the models of a folder of three runs into the new folder `out`, which `pipeline.load`
    opens: averaged weights where kept, no optimizer, evaluations and a model card beside them.

    With `dtype` bfloat16 the planner and the decoder are rounded; the tokenizer never is, for the
    hash of its weights is the token contract. The export reads itself back, and with `parity` plans
    and prints from both; without it one array at a time is held, and the tokenizer. Raises
    `ExportError` for weights that are not finite unless `allow_nan`, `ContractError` for models
    that do not fit together, and what `load_model` raises.
    """
    if dtype not in DTYPES:
        raise ExportError(f"a bundle has no dtype {dtype!r}: give {' or '.join(DTYPES)}")
    contract = _contract(Path(source))
    how = {"dtype": dtype, "shard_bytes": shard_bytes, "allow_nan": allow_nan}
    with fresh_folder(out) as folder:
        models = {name: _model(Path(source) / name, folder / name, **how) for name in MODELS}
        saved_s = max(model["time"] or 0 for model in models.values())
        results, older = _evaluations(Path(source), folder, saved_s)
        if (Path(source) / LEAST_TYPE).is_file() and dtype == "float32":  # else of other weights
            shutil.copyfile(Path(source) / LEAST_TYPE, folder / LEAST_TYPE)
        content = {
            "kind": "letterpress bundle", "dtype": dtype, "models": models, **language(),
            "token_contract": contract,
            "scores": {n: {**_headline(r), "older": n in older} for n, r in results.items()},
            "provenance": {"git_revision": git_revision(), "versions": versions()},
        }  # fmt: skip
        first = seal.seal(folder, content)
        found = Parity("the runs it is of")
        _compare_arrays(Path(source), folder, found, dtype=dtype)
        if parity:
            content["pictures"] = _compare_prints(Path(source), folder, found, exact=dtype)
        else:
            found.skipped = "--no-parity"
        found.write(folder / "parity.json")
        write_card(folder, content, results)
        seal.seal(folder, content, known=first["files"])
        return found


def _contract(source: Path) -> dict[str, Any]:
    """The contract of the tokenizer, which the decoder has learnt."""
    for name in MODELS:
        read_config(source / name)
    contract = token_contract(load_model(source / "tokenizer"))
    with open_run(source / "decoder") as (_, noted):
        learnt = noted["identity"].get("contract", {})
    require_same(learnt, contract, where=f"{source}/decoder")
    return contract


def _model(run: Path, out: Path, *, dtype: str, shard_bytes: int, allow_nan: bool) -> Any:
    """Write one model's folder, and return what `bundle.json` says of it."""
    config = read_config(run)
    out.mkdir()
    if used := prompt_file(run, config):
        shutil.copyfile(used, out / TOKENIZER_FILE)
        config["data"]["prompt_tokenizer"] = TOKENIZER_FILE
    (out / "config.json").write_text(json.dumps(config, indent=1))
    kept = "float32" if out.name == "tokenizer" else dtype
    with open_run(run) as (found, noted):
        if lines := misfits(found, model_arrays(task_of(ConfigDict(config)))):
            raise ExportError(f"{run} is not a run of its config.json ({shown(lines)})")
        about: dict[str, Any] = {key: noted[key] for key in _OF_TRAINING if key in noted}
        about["not_finite"] = []
        shapes = {name: (array.dtype, tuple(array.shape)) for name, array in found.items()}
        rounded = None if kept == "float32" else DTYPES[kept]
        with write_weights(out, shapes, about, dtype=rounded, shard_bytes=shard_bytes) as writer:
            for name, stored in found.items():
                array = np.asarray(stored[...])
                if not is_finite(array):
                    if not allow_nan:
                        raise ExportError(
                            f"{name} of {run} holds numbers that are not finite: export an earlier "
                            "step, or allow it with --allow-nan"
                        )
                    about["not_finite"].append(name)
                writer.put(name, array)
    count = sum(math.prod(shape) for name, (_, shape) in shapes.items() if name[:7] == "params/")
    return {
        "config_hash": hash_of(config), "num_parameters": count, "dtype": kept,
        "step": noted["step"], "time": noted.get("time"), "not_finite": about["not_finite"],
        "git_revision": noted.get("git_revision"), "versions": noted.get("versions"),
    }  # fmt: skip


def _evaluations(source: Path, folder: Path, saved_s: float) -> tuple[dict[str, Results], set[str]]:
    """The results in folders beside the runs, by the folder's name, `pages` first, copied as they
    are; and the names of those written before `saved_s`, when the newest weights were saved."""
    found: dict[str, Results] = {}
    older = set()
    for path in sorted(source.glob("*/scores.json"), key=lambda p: (p.parent.name != "pages", p)):
        name = path.parent.name
        found[name] = load_results(path)
        if path.stat().st_mtime < saved_s:
            older.add(name)
        (folder / "evaluation").mkdir(exist_ok=True)
        shutil.copyfile(path, folder / "evaluation" / f"{name}.json")
    return found, older


def _headline(results: Results) -> dict[str, Any]:
    score = results.metrics[results.headline]
    return {
        "benchmark": results.benchmark, "metric": results.headline, "value": score.value,
        "low": score.low, "high": score.high, "num_cases": results.num_cases,
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Rounded:
    """An array as it is after rounding."""

    stored: Stored
    dtype: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def __getitem__(self, index: Any, /) -> np.ndarray:
        array = np.asarray(self.stored[index])
        return array.astype(self.dtype) if is_float(array.dtype) else array


def _compare_arrays(source: Path, folder: Path, found: Parity, *, dtype: str) -> None:
    for name in MODELS:
        said = f"{name}, every array"
        with open_run(source / name) as (ours, _):
            before: Mapping[str, Stored] = ours
            if dtype != "float32" and name != "tokenizer":
                before = {key: _Rounded(array, DTYPES[dtype]) for key, array in ours.items()}
                said += f" after rounding to {dtype}"
            found.arrays(said, before, open_weights(folder / name)[0])


def _prompts(bundle: Bundle) -> Iterator[str]:
    data = build(DataConfig, bundle.planner.config.data, path="config.data")
    for record in map(Plans(heldout(data.page), _NUM_SHOWN).__getitem__, range(_NUM_SHOWN)):
        yield record["prompt"]


def _printed(folder: Path, plans: list[Blueprint] | None = None) -> Any:
    """(prompts, plans, codes, pixels) of held-out prompts, or of these plans."""
    bundle = Bundle(folder)
    prompts = list(_prompts(bundle))
    plans = plans or bundle.plan(prompts)
    codes = bundle.codes(plans)
    return prompts, plans, codes, bundle.pixels(codes)


def _compare_prints(source: Path, folder: Path, found: Parity, *, exact: str) -> dict[str, Any]:
    """Plan and print from both, in turn; a rounded bundle has only to say how much it keeps."""
    prompts, plans, codes, pixels = _printed(source)
    if exact == "float32":
        _, again, own, shown = _printed(folder)
        found.ids(
            "blueprints of held-out prompts", *([to_json(p) for p in s] for s in (plans, again))
        )
        found.ids("codes of their pages", codes, own)
        found.ids("pixels of their pages", pixels, shown)
    else:
        _, _, own, shown = _printed(folder, plans)
    pictures = folder / "pictures"
    pictures.mkdir()
    Image.fromarray(shown[0]).save(pictures / "page.png")
    Image.fromarray(to_pixels(plans[0])).save(pictures / "blueprint.png")
    (pictures / "blueprint.json").write_text(to_json(plans[0]))
    equal = float((codes == own).mean())
    return {"prompt": prompts[0], "equal_codes": equal, "num_codes": int(codes.size)}
