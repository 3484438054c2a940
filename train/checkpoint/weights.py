"""The weights of a run for those who only read it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.checkpoint import arrays
from train.checkpoint.arrays import MODEL
from train.checkpoint.opening import opened


def fingerprint(*trees: Any) -> str:
    """SHA-256 of the names and bytes of all arrays."""
    digest = hashlib.sha256()
    for tree in trees:
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def list_keys(tree: Any) -> Any:
    """A list's indices are strings on disk and whole numbers in a model's pure dict."""
    if not isinstance(tree, Mapping):
        return tree
    return {int(k) if k.isdigit() else k: list_keys(v) for k, v in tree.items()}


def load_weights(
    folder: Path, *, ema: bool = True, step: int | None = None, fall_back: bool = False
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(weights, extra, manifest) of a complete step (the newest), as numpy, whatever devices and
    optimizers wrote it.

    The weights are averaged ones if kept and if `ema`. The step is pinned meanwhile. Raises
    `CheckpointError` when there is no such step, `DamageError` when the files of its model are not
    those that were written, unless `fall_back` and an earlier step's are.
    """
    with opened(folder, step=step, parts=(MODEL,), fall_back=fall_back) as (target, noted):
        names = [name for name in noted["arrays"] if arrays.part_of(name) == MODEL]
        model = list_keys(arrays.nest(arrays.read(target, dict.fromkeys(names))))
    return (ema and model.get("ema")) or model["params"], model.get("extra", {}), noted
