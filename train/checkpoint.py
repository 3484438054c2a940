"""Checkpoints behind a small interface: atomic, exact, and refusing to continue another run.

A step lies in `<folder>/<step>/`: Orbax writes `model` and `optimizer` (each appears whole or not
at all), then `manifest.json` is renamed into place. A step without a manifest was cut short: it is
ignored and removed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from train.state import State

_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint")


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, or that belongs to another run."""


def differences(saved: Any, wanted: Any, path: str = "") -> list[str]:
    """Where two nested identities differ, one line each."""
    if isinstance(saved, Mapping) and isinstance(wanted, Mapping):
        lines = []
        for key in sorted({*saved, *wanted}):
            lines += differences(saved.get(key), wanted.get(key), f"{path}.{key}" if path else key)
        return lines
    return [] if saved == wanted else [f"{path}: {saved!r} there, {wanted!r} here"]


def _folders(folder: Path) -> list[Path]:
    return [p for p in folder.glob("*") if p.name.isdigit() and p.is_dir()]


def _complete(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in _folders(folder) if (p / "manifest.json").exists())


class Checkpoints:
    """The steps of one run. `identity` is what must not change between its restarts (plain
    JSON)."""

    def __init__(self, folder: Path, *, identity: Mapping[str, Any], keep: int = 2) -> None:
        self.folder = Path(folder).absolute()
        self.identity = json.loads(json.dumps(identity))
        self.keep = keep
        self._orbax = ocp.StandardCheckpointer()

    def steps(self) -> list[int]:
        """Complete steps, oldest first."""
        return _complete(self.folder)

    def save(self, state: State, step: int, *, metrics: Mapping[str, float] | None = None) -> None:
        """Write one step; returns when it is complete, and removes those past `keep`. `metrics` are
        noted in the manifest."""
        target = self.folder / str(step)
        (target / "manifest.json").unlink(missing_ok=True)
        model = {"params": state.params, "extra": state.extra, "ema": state.ema}
        leaves = {f"{i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(state.opt))}
        self._orbax.save(target / "model", model, force=True)
        self._orbax.save(
            target / "optimizer",
            {"step": state.step, "opt": leaves, "guard": state.guard},
            force=True,
        )
        self._orbax.wait_until_finished()
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        manifest = {
            "step": step, "identity": self.identity, "versions": versions,
            "metrics": dict(metrics or {}),
        }  # fmt: skip
        draft = target / "manifest.json.part"
        draft.write_text(json.dumps(manifest, indent=1))
        os.replace(draft, target / "manifest.json")
        for old in self.steps()[: -self.keep]:
            (self.folder / str(old) / "manifest.json").unlink()
            shutil.rmtree(self.folder / str(old))

    def restore(self, abstract: State) -> State | None:
        """The newest complete step in the shapes and shardings of `abstract`; None before the
        first.

        Raises `CheckpointError` when it was written under another identity.
        """
        for cut_short in _folders(self.folder):
            if not (cut_short / "manifest.json").exists():
                shutil.rmtree(cut_short)
        if not self.steps():
            return None
        target = self.folder / str(self.steps()[-1])
        saved = json.loads((target / "manifest.json").read_text())["identity"]
        if lines := differences(saved, self.identity):
            raise CheckpointError(
                f"{target} was trained under another config ({'; '.join(lines)}): "
                "give the old values, or another --workdir"
            )
        leaves, treedef = jax.tree.flatten(abstract.opt)
        model = self._orbax.restore(
            target / "model",
            {"params": abstract.params, "extra": abstract.extra, "ema": abstract.ema},
        )
        rest = self._orbax.restore(
            target / "optimizer",
            {
                "step": abstract.step,
                "guard": abstract.guard,
                "opt": {f"{i:05d}": leaf for i, leaf in enumerate(leaves)},
            },
        )
        opt = treedef.unflatten([rest["opt"][f"{i:05d}"] for i in range(len(leaves))])
        return State(
            rest["step"], model["params"], model["extra"], opt, model["ema"], rest["guard"]
        )


def newest(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Folder and manifest of a run's newest complete step.

    Raises `CheckpointError` when there is none; the message says whether one was cut short.
    """
    folder = Path(folder).absolute()
    if not (steps := _complete(folder)):
        begun = sorted(int(p.name) for p in _folders(folder))
        detail = f" (step {begun[-1]} was cut short)" if begun else ""
        raise CheckpointError(f"{folder} holds no complete checkpoint{detail}; train there first")
    target = folder / str(steps[-1])
    return target, json.loads((target / "manifest.json").read_text())


def fingerprint(*trees: Any) -> str:
    """SHA-256 of the names and bytes of all arrays."""
    digest = hashlib.sha256()
    for tree in trees:
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _list_keys(tree: Any) -> Any:
    """A list's indices are strings on disk and whole numbers in a model's pure dict."""
    if not isinstance(tree, Mapping):
        return tree
    return {int(k) if k.isdigit() else k: _list_keys(v) for k, v in tree.items()}


def load_weights(
    folder: Path, *, ema: bool = True
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(weights, extra, manifest) of the newest complete step, as numpy, whatever devices and
    optimizers wrote it.

    The weights are averaged ones if kept and if `ema`. Raises `CheckpointError` when there is no
    complete step, or when its files are damaged.
    """
    target, manifest = newest(folder)
    reader = ocp.PyTreeCheckpointer()
    try:
        saved: Any = reader.metadata(target / "model").item_metadata
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved.tree)
        model = _list_keys(reader.restore(target / "model", restore_args=as_numpy))
    except (OSError, ValueError, KeyError, AttributeError) as problem:
        raise CheckpointError(
            f"{target} has a manifest but its arrays cannot be read ({problem}); "
            "remove that folder to fall back to an earlier step"
        ) from problem
    return (ema and model["ema"]) or model["params"], model["extra"], manifest
