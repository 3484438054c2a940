"""One model's way into a foreign format and back: convert, compare, only then say it is done."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from ml_collections import ConfigDict

from pipeline.sealed import read_config
from pipeline.tasks import task_of
from train.checkpoint.manifest import differences, git_revision, versions
from train.export import ExportError, Parity, Stored, Table, Writer, open_tensors
from train.export.folder import initial_arrays, model_arrays, open_run, write_weights
from train.export.tensors import fresh_folder

Arrays = dict[str, Stored]
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


@dataclasses.dataclass(frozen=True)
class Family:
    """How one kind of model stands in one foreign format.

    `table(model)` are the names for a `config.model`, `write_config(config, folder)` the files that
    stand beside the tensors, `read_config(folder, config)` the `config.model` that a foreign folder
    asks for, with what it does not say taken from ours. `compare(run, folder, parity)` runs our
    model in `run` and theirs in `folder` on the same inputs. `opened(folder)` are the tensors of a
    foreign folder. `table_in(folder, model)` are the names of a foreign folder where they are not
    those that `table` writes. `carry(source, config, folder, out)` puts into `folder`, which will
    be `out`, what else a run needs of a foreign folder, points `config` to it, and returns what the
    manifest's identity is to say of that. `settled(model, arrays, parity)` are a run's arrays as
    they are exported, for a format in which they must be of a certain form: what it changes
    computes the same here, is what the way back is compared with, and has a note. They raise
    `ExportError` where the format cannot say what a config means.
    """

    library: str
    table: Callable[[ConfigDict], Table]
    write_config: Callable[[ConfigDict, Path], None]
    read_config: Callable[[Path, ConfigDict], ConfigDict]
    compare: Callable[[Path, Path, Parity], None]
    stem: str = "model"
    opened: Callable[[Path], dict[str, Stored]] = open_tensors
    table_in: Callable[[Path, ConfigDict], Table] | None = None
    carry: Callable[[Path, ConfigDict, Path, Path], dict[str, Any]] | None = None
    settled: Callable[[ConfigDict, Arrays, Parity], Arrays] = lambda model, arrays, parity: arrays


def _version(library: str) -> str:
    try:
        return f"{library} {importlib.metadata.version(library)}"
    except importlib.metadata.PackageNotFoundError:
        return library


def _compared(family: Family, run: Path, theirs: Path, found: Parity, *, wanted: bool) -> Parity:
    if wanted:
        family.compare(run, theirs, found)
    else:
        found.skipped = "--no-parity"
    return found


def export(
    family: Family, run: Path, out: Path, *, dtype: str = "float32", parity: bool = True
) -> Parity:
    """Write a run's weights into the new folder `out` in a foreign format, and `parity.json`: the
    way back gives the same bytes, and both libraries compute the same (see `Parity.ok`).

    Without `parity` only the conversion is done, which holds one array at a time. Raises
    `ExportError` for a model that the format cannot express.
    """
    config = ConfigDict(read_config(run))
    table = family.table(config.model)
    with open_run(run) as (ours, _), fresh_folder(out) as folder:
        found = Parity(_version(family.library))
        ours = family.settled(config.model, ours, found)
        shapes = {name: (array.dtype, tuple(array.shape)) for name, array in ours.items()}
        kept = table.their_shapes(shapes, DTYPES[dtype])
        with Writer(folder, kept, stem=family.stem, metadata={"format": "pt"}) as writer:
            table.export(ours, writer)
        family.write_config(config, folder)
        if parity and dtype == "float32":
            _round_trip(family, table, ours, folder, found)
        _compared(family, run, folder, found, wanted=parity).write(folder / "parity.json")
        return found


def _round_trip(
    family: Family, table: Table, ours: dict[str, Stored], folder: Path, found: Parity
) -> None:
    """Bring the export back beside itself, compare every byte, and remove that again."""
    shapes = {n: (a.dtype, tuple(a.shape)) for n, a in ours.items() if not table.leaves_out(n)}
    with fresh_folder(folder / "back") as back:
        with Writer(back, shapes) as writer:
            table.bring_in(family.opened(folder), shapes, writer, {})
        returned = open_tensors(back)
        found.arrays("ours -> theirs -> ours", {n: ours[n] for n in shapes}, returned)
    shutil.rmtree(folder / "back")


def import_weights(
    family: Family, source: Path, config: ConfigDict, out: Path, *, parity: bool = True
) -> Parity:
    """Make the new run `out` of a foreign folder's weights: `config.json`, `weights/` and
    `parity.json`. `scripts/train.py --workdir OUT` goes on from it, at step 0.

    Arrays that the weights have none for are initialised and named in the manifest and in the
    result's notes. Raises `ExportError` naming every setting in which `config.model` differs from
    what the weights need, and every tensor that does not fit.
    """
    source, config = Path(source), config.copy_and_resolve_references()
    wanted = family.read_config(source, config)
    if lines := differences(_plain(wanted), _plain(config.model)):
        raise ExportError(
            f"the weights in {source} are of another model: {'; '.join(lines)} (there: the "
            "weights', here: config.model's); set each as --config.model.NAME=VALUE"
        )
    table = family.table_in(source, config.model) if family.table_in else family.table(config.model)
    task, theirs = task_of(config), family.opened(source)
    shapes = model_arrays(task)
    table.require(theirs, shapes)
    left = [name for name in shapes if table.leaves_out(name) and name not in table.given]
    found = Parity(_version(family.library))
    found.notes += [f"fresh, for the weights have none: {name}" for name in left]
    imported = {"from": family.library, "source": str(source), "fresh": left}
    with fresh_folder(out) as folder:
        identity = family.carry(source, config, folder, Path(out)) if family.carry else {}
        about: dict[str, Any] = {
            "step": 0, "identity": identity, "metrics": {}, "config": config.to_dict(),
            "imported": imported, "git_revision": git_revision(), "versions": versions(),
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=1))
        with write_weights(folder, shapes, about) as writer:
            table.bring_in(theirs, shapes, writer, initial_arrays(task, left))
        _compared(family, folder, source, found, wanted=parity).write(folder / "parity.json")
        return found


def _plain(config: ConfigDict) -> Any:
    return json.loads(json.dumps(config.to_dict()))
