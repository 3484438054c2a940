"""A run's weights outside of its checkpoints: `RUN/weights/`, safetensors and a manifest.

Names are those of the checkpoints, `params/blocks/layer/mlp/up/kernel` and `extra/...`; averaged
weights are called `params`, since they are what a reader uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from train.checkpoint import arrays, manifest
from train.checkpoint.manifest import CheckpointError, DamageError
from train.checkpoint.opening import opened
from train.checkpoint.weights import list_keys
from train.export.fitting import is_float, read_fitting
from train.export.table import Shapes
from train.export.tensors import SHARD_BYTES, Stored, Writer, open_tensors
from train.task import Task

FOLDER = "weights"


class _OfStep:
    """An array of a checkpoint, read whole whatever is asked of it: Orbax's chunks are shards."""

    def __init__(self, target: Path, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        self.target, self.name, self.shape, self.dtype = target, name, shape, np.dtype(dtype)

    def __getitem__(self, index: Any, /) -> np.ndarray:
        return np.asarray(arrays.read(self.target, {self.name: None})[self.name])[index]

    def placed(self, sharding: Any) -> jax.Array:
        """On devices, each reading its own part."""
        leaf = jax.ShapeDtypeStruct(self.shape, self.dtype, sharding=sharding)
        return arrays.read(self.target, {self.name: leaf})[self.name]


def placed(stored: Stored, leaf: Any) -> jax.Array:
    """A stored array where `leaf` (a shape with its sharding) lies and in its dtype; each part that
    devices of this process hold is read once."""
    if isinstance(stored, _OfStep):
        array = stored.placed(leaf.sharding)
        return array if array.dtype == leaf.dtype else array.astype(leaf.dtype)
    parts: dict[str, np.ndarray] = {}

    def part(index: Any) -> np.ndarray:
        if str(index) not in parts:
            parts[str(index)] = np.asarray(stored[index]).astype(leaf.dtype, copy=False)
        return parts[str(index)]

    return jax.make_array_from_callback(leaf.shape, leaf.sharding, part)


def model_arrays(task: Task) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Name to (dtype, shape) of everything that a model of this task is."""
    module = nnx.eval_shape(lambda: task.init(nnx.Rngs(0)))
    return {name: (np.dtype(leaf.dtype), leaf.shape) for name, leaf in _named(module).items()}


def initial_arrays(task: Task, names: Any) -> dict[str, Any]:
    """These arrays as a fresh model has them; nothing else is computed."""
    wanted = set(names)
    if not wanted:
        return {}

    def init() -> dict[str, Any]:
        found = _named(task.init(nnx.Rngs(0)))
        return {name: leaf for name, leaf in found.items() if name in wanted}

    return jax.tree.map(np.asarray, jax.jit(init)())


def _named(module: Any) -> dict[str, Any]:
    _, params, extra = nnx.split(module, nnx.Param, ...)
    trees = {"params": nnx.to_pure_dict(params), "extra": nnx.to_pure_dict(extra)}
    return arrays.named(trees)


def has_weights(workdir: Path) -> bool:
    """Whether a run's weights are those of `weights/`: it has them, and no checkpoint."""
    there = (Path(workdir) / FOLDER / manifest.NAME).exists()
    return there and not manifest.complete(Path(workdir) / "checkpoints")


@contextlib.contextmanager
def open_run(
    workdir: Path, *, ema: bool = True, step: int | None = None, checksums: bool = True
) -> Iterator[tuple[dict[str, Stored], dict[str, Any]]]:
    """(arrays, manifest) of a run, each array read when it is asked for: of the newest checkpoint
    (or of a step), averaged ones if kept and if `ema`, else of `weights/`.

    Raises `CheckpointError` when there is neither, `DamageError` when files are not those that were
    written; `checksums` false looks at the sizes alone.
    """
    if step is None and has_weights(workdir):
        yield open_weights(Path(workdir), checksums=checksums)
        return
    how: dict[str, Any] = {"step": step, "parts": (arrays.MODEL,), "checksums": checksums}
    with opened(Path(workdir) / "checkpoints", **how) as (target, noted):
        kept = {name: what for name, what in noted["arrays"].items() if name.split("/")[0] != "opt"}
        averaged = ema and any(name.startswith("ema/") for name in kept)
        found: dict[str, Stored] = {}
        for name, (dtype, shape) in kept.items():
            part, _, rest = name.partition("/")
            if part in ("extra", "ema" if averaged else "params"):
                own = name if part == "extra" else f"params/{rest}"
                found[own] = _OfStep(target, name, dtype, tuple(shape))
        yield found, noted


def open_weights(
    workdir: Path, *, checksums: bool = True
) -> tuple[dict[str, Stored], dict[str, Any]]:
    """(arrays, manifest) of `weights/`, every byte of its files checked against the manifest, or
    without `checksums` their sizes.

    Raises `DamageError` naming each file that is missing or not as it was written, and
    `CheckpointError` for another schema.
    """
    folder = Path(workdir) / FOLDER
    noted = manifest.read(folder)
    if problems := manifest.damage(folder, noted["files"], noted["files"], checksums=checksums):
        raise DamageError(f"{folder} is damaged ({'; '.join(problems)}): copy or export it again")
    return open_tensors(folder), noted


def saved_step(workdir: Path) -> int | None:
    """The newest complete step of a run, or that of its `weights/`; None if it has neither."""
    if steps := manifest.complete(Path(workdir) / "checkpoints"):
        return steps[-1]
    return int(manifest.read(Path(workdir) / FOLDER)["step"]) if has_weights(workdir) else None


def read_weights(
    workdir: Path, task: Task
) -> tuple[dict[Any, Any], dict[Any, Any], dict[str, Any]]:
    """(weights, extra, manifest) of `weights/` as `train.checkpoint.load_weights` has them, in the
    dtypes of the task's model whatever they were written in.

    Raises `FormatError` naming every array that is not the model's.
    """
    found, noted = open_weights(workdir)
    fitting = read_fitting(
        found, model_arrays(task), where=Path(workdir) / FOLDER,
        not_finite=noted.get("not_finite", ()),
    )  # fmt: skip
    tree = list_keys(arrays.nest(fitting))
    return tree["params"], tree.get("extra", {}), noted


@contextlib.contextmanager
def write_weights(
    workdir: Path,
    shapes: Shapes,
    about: Mapping[str, Any],
    *,
    dtype: Any = None,
    shard_bytes: int = SHARD_BYTES,
) -> Iterator[Writer]:
    """A writer of `weights/`, whose manifest is written when all is there; `about` goes into it
    (`step`, `identity` and where the weights are from), as it is by then. Floats are written in
    `dtype` if given."""
    folder = Path(workdir) / FOLDER
    if (folder / manifest.NAME).exists():
        raise CheckpointError(f"{folder} holds weights already: give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    kept = {n: (dtype if dtype and is_float(d) else d, s) for n, (d, s) in shapes.items()}
    with Writer(folder, kept, shard_bytes=shard_bytes) as writer:
        yield writer
    sizes = manifest.listing(folder)
    files = {n: {"bytes": size, "crc32": manifest.crc32(folder / n)} for n, size in sizes.items()}
    table = {name: [str(np.dtype(d)), list(s)] for name, (d, s) in kept.items()}
    manifest.write(folder, {**about, "arrays": table, "files": files})
