"""What an exported bundle says of itself, and whether this code can honour it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blueprint import schema, vocab
from train.checkpoint.manifest import hash_of, plain
from train.export import seal
from train.export.seal import SealError

MODELS = ("tokenizer", "planner", "decoder")
TOKENIZER_FILE = "tokenizer.json"  # that prompts are read by, beside the planner's config.json


@functools.cache
def vocab_identity() -> dict[str, Any]:
    """The planner's ids: how many, and a hash of what each stands for."""
    names = [vocab.name(i) for i in range(vocab.SIZE)]
    return {"size": vocab.SIZE, "sha256": hash_of(names)}


def language() -> dict[str, Any]:
    """What the models of a bundle speak with each other."""
    return {"blueprint_version": schema.VERSION, "vocab": vocab_identity()}


def read_config(workdir: Path) -> dict[str, Any]:
    """`config.json` of a run or an exported model; raises `FileNotFoundError` without one, and
    `ValueError` when it cannot be read."""
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{workdir} is no training run (no config.json); train there first")
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError, RecursionError) as problem:
        raise ValueError(f"{path} cannot be read as JSON ({problem}): copy it again") from problem


def prompt_file(workdir: Path, config: Mapping[str, Any]) -> str:
    """Where the file lies that prompts are read by: in the folder if it has one of that name, else
    where the config says; "" for bytes."""
    name = config.get("data", {}).get("prompt_tokenizer", "")
    own = Path(workdir) / name
    return str(own) if name and own.is_file() else name


def require_readable(folder: Path) -> dict[str, Any]:
    """What an exported bundle says of itself, every byte of it read.

    Raises `SealError` for damage, another blueprint version or vocab, and a model's folder that is
    not the one that was exported.
    """
    noted = seal.require_whole(folder)
    where = Path(folder) / seal.NAME
    if noted.get("blueprint_version") != schema.VERSION:
        raise SealError(
            f"{where}: its planner writes blueprints of version {noted.get('blueprint_version')!r} "
            f"and this code reads version {schema.VERSION}: use the version that exported it"
        )
    if noted.get("vocab") != plain(vocab_identity()):
        raise SealError(
            f"{where}: the ids of its planner stand for other things (vocab {noted.get('vocab')} "
            f"there, {vocab_identity()} here): use the version that exported it"
        )
    models = noted.get("models")
    if not isinstance(models, dict) or models.keys() != set(MODELS):
        raise SealError(f"{where} does not tell of {', '.join(MODELS)}: do not use it")
    for name in MODELS:
        _require_config(Path(folder), name, noted)
    return noted


def require_part(workdir: Path) -> None:
    """Raise `SealError` when a model's folder lies in an exported bundle and is not as that says;
    nothing is asked of other folders."""
    whole = Path(workdir).absolute().parent
    if Path(workdir).name in MODELS and seal.is_sealed(whole):
        seal.require_whole(whole, under=Path(workdir).name)


def _require_config(folder: Path, name: str, noted: Mapping[str, Any]) -> None:
    config, told = read_config(folder / name), noted["models"][name]
    if not isinstance(told, dict) or hash_of(config) != told.get("config_hash"):
        raise SealError(
            f"{folder / seal.NAME} tells of another config than {name}/config.json: the folders "
            "of two exports were mixed; export the bundle again"
        )
    if config.get("task") != name:
        raise SealError(f"{folder / name} is a {config.get('task')!r}'s: do not use this bundle")
    used = config.get("data", {}).get("prompt_tokenizer", "")
    if used and f"{name}/{used}" not in noted["files"]:
        raise SealError(
            f"{folder / name}/config.json reads prompts by {used!r}, which is no file of the "
            "bundle: do not use it"
        )
