"""Checkpoints behind a small interface: atomic, exact, and refusing to continue another run.

A step lies in `<folder>/<step>/`: Orbax writes `model` and `optimizer` (each appears whole or not
at all), then `manifest.json` is renamed into place. A step without a manifest was cut short: it is
ignored and removed.
"""

from __future__ import annotations

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
        return sorted(int(p.parent.name) for p in self.folder.glob("*/manifest.json"))

    def save(self, state: State, step: int) -> None:
        """Write one step; returns when it is complete, and removes those past `keep`."""
        target = self.folder / str(step)
        model = {"params": state.params, "extra": state.extra, "ema": state.ema}
        leaves = {f"{i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(state.opt))}
        self._orbax.save(target / "model", model, force=True)
        self._orbax.save(target / "optimizer", {"step": state.step, "opt": leaves}, force=True)
        self._orbax.wait_until_finished()
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        manifest = {"step": step, "identity": self.identity, "versions": versions}
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
        for cut_short in [p for p in self.folder.glob("*") if not (p / "manifest.json").exists()]:
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
            {"step": abstract.step, "opt": {f"{i:05d}": leaf for i, leaf in enumerate(leaves)}},
        )
        opt = treedef.unflatten([rest["opt"][f"{i:05d}"] for i in range(len(leaves))])
        return State(rest["step"], model["params"], model["extra"], opt, model["ema"])


def newest(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Folder and manifest of a run's newest complete step; raises `CheckpointError` when there is
    none."""
    manifests = sorted(Path(folder).glob("*/manifest.json"), key=lambda p: int(p.parent.name))
    if not manifests:
        raise CheckpointError(f"{folder} holds no complete checkpoint; train there first")
    return manifests[-1].parent, json.loads(manifests[-1].read_text())


def load_weights(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(weights, extra, manifest) of the newest complete step, as numpy; the weights are averaged
    ones if kept."""
    target, manifest = newest(folder)
    model = ocp.StandardCheckpointer().restore(target.absolute() / "model")
    model = jax.tree.map(np.asarray, model)
    return model["ema"] or model["params"], model["extra"], manifest
