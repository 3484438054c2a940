"""Which model stands in which format, and how it gets there."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

from ml_collections import ConfigDict

from pipeline.export import family as families
from pipeline.export.family import Family
from pipeline.sealed import MODELS, read_config
from train.export import ExportError, Parity

_FAMILIES = {
    ("transformers", "planner"): "transformers:FAMILY",
    ("transformers", "decoder"): "transformers_decoder:DECODER",
    ("diffusers", "tokenizer"): "diffusers:VQMODEL",
    ("llamagen", "tokenizer"): "llamagen_tokenizer:VQ",
    ("llamagen", "decoder"): "llamagen:DECODER",
}
_WHOLE = {
    "bundle": "bundle:export_bundle", "stablehlo": "compiled:export_compiled",
    "onnx": "onnx:export_onnx",
}  # fmt: skip
IMPORTS = tuple(dict.fromkeys(name for name, _ in _FAMILIES))
FORMATS = ("bundle", *IMPORTS, "stablehlo", "onnx")


def _found(place: str) -> object:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"pipeline.export.{module}"), name)


def family_of(name: str, task: str) -> Family:
    """How a task's model stands in a format; raises `ExportError` saying which formats it has."""
    if (name, task) not in _FAMILIES:
        there = ", ".join(format_ for format_, of in _FAMILIES if of == task) or "none"
        raise ExportError(f"a {task} has no place in {name}; formats that have one: {there}")
    return _found(_FAMILIES[name, task])  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class Sent:
    """What each comparison found by model ("" where there is one thing), and why other models of a
    bundle stayed here."""

    found: dict[str, Parity]
    left_out: dict[str, str]


def send_out(
    source: Path,
    name: str,
    out: Path,
    *,
    dtype: str = "float32",
    allow_nan: bool = False,
    parity: bool = True,
) -> Sent:
    """Export a run, or every model of a bundle that the format can express, each into a folder of
    its own.

    Raises `ExportError` when the format can express none of them, `FileExistsError` where `out`
    exists.
    """
    source, out = Path(source), Path(out)
    if name in _WHOLE:
        how = {"dtype": dtype, "allow_nan": allow_nan} if name == "bundle" else {}
        if dtype != "float32" and not how:
            raise ExportError(f"{name} is written in float32: leave --dtype out")
        return Sent({"": _found(_WHOLE[name])(source, out, parity=parity, **how)}, {})  # type: ignore[operator]
    if (source / "config.json").is_file():
        family = family_of(name, read_config(source)["task"])
        return Sent({"": families.export(family, source, out, dtype=dtype, parity=parity)}, {})
    there = [model for model in MODELS if (source / model / "config.json").is_file()]
    if not there:
        raise FileNotFoundError(
            f"{source} is no run and no bundle (no config.json, and no {'/, '.join(MODELS)}/)"
        )
    if out.exists():
        raise FileExistsError(f"{out} is there already: give another folder, or remove it")
    sent = Sent({}, {})
    for model in there:
        how = {"dtype": dtype, "parity": parity}
        try:
            family = family_of(name, model)
            sent.found[model] = families.export(family, source / model, out / model, **how)
        except ExportError as problem:
            sent.left_out[model] = str(problem)
    if not sent.found:
        raise ExportError("; ".join(sent.left_out.values()))
    return sent


def bring_in(
    source: Path, name: str, config: ConfigDict, out: Path, *, parity: bool = True
) -> Parity:
    """Make the run `out` of another library's weights (see `family.import_weights`)."""
    family = family_of(name, config.get("task", ""))
    return families.import_weights(family, source, config, out, parity=parity)
