"""A training that begins with weights: of another run, of an exported model, or with those that its
own folder holds, as an import leaves them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from train.checkpoint import arrays, manifest
from train.checkpoint.manifest import About, CheckpointError, differences
from train.checkpoint.transfer import Transfer
from train.distributed.protocol import Cluster
from train.export import seal
from train.export.fitting import misfit
from train.export.folder import has_weights, open_run, placed
from train.export.tensors import FormatError, Stored
from train.state import State

_PATIENCE_S = 5400.0  # a cold file system may take long to give all bytes of a large model
_CHUNK = 1 << 24


@dataclasses.dataclass(frozen=True)
class Start:
    """Which weights a run begins with. `source` is None where its task draws them, and where a
    checkpoint already holds what became of them; `weights` is their hash, "" for drawn ones."""

    source: Path | None = None
    weights: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """What a restart may not change."""
        return {"init": self.weights} if self.weights else {}

    def arrays(self, abstract: State) -> dict[str, jax.Array]:
        """What the source has of `params` and `extra`, where `abstract` says that they lie: each
        process reads the parts of its own devices, one array at a time. What is loaded, what stays
        as it was drawn and what is not used is logged.

        Raises `CheckpointError` naming every array that is there in another shape or dtype.
        """
        if self.source is None:
            return {}
        wanted = arrays.named({"params": abstract.params, "extra": abstract.extra})
        with open_run(self.source, checksums=False) as (found, _):
            shared = [name for name in wanted if name in found]
            lines = [
                line
                for name in shared
                for line in misfit(name, found[name], wanted[name].dtype, wanted[name].shape)
            ]
            if lines or not shared:
                said = "; ".join(lines) or "it has none of this model's arrays"
                raise CheckpointError(
                    f"{self.source} does not fit this run ({said}): nothing was read; give the "
                    "config of these weights, or another --config.init"
                )
            loaded = {name: placed(found[name], wanted[name]) for name in shared}
        transfer = Transfer(
            tuple(sorted(loaded)),
            tuple(sorted(wanted.keys() - loaded.keys())),
            tuple(sorted(found.keys() - loaded.keys())),
        )
        logging.info("begins with %s: %s", self.source, transfer)
        if transfer.fresh:
            fresh = ", ".join(transfer.fresh)
            logging.warning("not in %s, so these begin as drawn: %s", self.source, fresh)
        return loaded


def begin(workdir: Path, about: About, cluster: Cluster) -> Start:
    """The start of a run: what its newest checkpoint says, which is asked first and read no
    further; else `about.init`; else the `weights/` in its own folder; else nothing.

    All processes take what the first one sees, and share the work of the hash. Raises
    `CheckpointError` when the weights cannot be read or are not those that were written.
    """
    decided = _by_all(cluster, "start", lambda: _decided(workdir, about.init, cluster.is_first))[0]
    if not decided["source"]:
        return Start(None, decided["weights"])
    source = Path(decided["source"])
    parts = _by_all(cluster, "weights to start from", lambda: _digests(source, cluster))
    if lines := differences(parts[0]["contract"], manifest.plain(about.token_contract)):
        logging.warning("%s has learnt other codes: %s", source, "; ".join(lines))
    digests = {name: digest for part in parts for name, digest in part["digests"].items()}
    return Start(source, manifest.hash_of(digests))


def require_own(workdir: Path, config: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` where a run would begin in a folder whose `weights/` are of another
    model than its config's, or part of an exported bundle, which stays as it is."""
    if not has_weights(workdir):
        return
    if seal.is_sealed(Path(workdir).absolute().parent):
        raise CheckpointError(
            f"{workdir} is part of an exported bundle and stays as it is: give another --workdir, "
            f"with --config.init={workdir}"
        )
    there = json.loads((Path(workdir) / "config.json").read_text())
    for key in ("task", "model"):
        if lines := differences(manifest.plain(there.get(key)), manifest.plain(config[key]), key):
            raise CheckpointError(
                f"the weights in {workdir} are of another model ({'; '.join(lines)}): set these "
                "values with --config, or give another --workdir"
            )


def _decided(workdir: Path, init: str, is_first: bool) -> dict[str, str]:
    """The source and, if a checkpoint knows it, the hash; only the first process looks."""
    if not is_first:
        return {}
    noted = _newest(Path(workdir) / "checkpoints")
    if noted is not None and noted.get("init", "") == init:
        return {"source": "", "weights": noted["identity"].get("init", "")}
    own = has_weights(workdir)
    if own and init:
        raise CheckpointError(
            f"{workdir} holds weights of its own and --config.init names {init}: leave one of them"
        )
    source = str(workdir) if own else init
    if source and seal.is_sealed(Path(source)):
        raise CheckpointError(f"{source} is a bundle of models: give the folder of one of them")
    if source and seal.is_sealed(Path(source).absolute().parent):
        seal.require_whole(Path(source).absolute().parent, under=Path(source).name)
    return {"source": source, "weights": ""}


def _newest(folder: Path) -> dict[str, Any] | None:
    """The newest manifest that can be read; what is wrong with others is said by the restore."""
    for step in reversed(manifest.complete(folder)):
        try:
            return manifest.read(folder / str(step))
        except CheckpointError:
            continue
    return None


def _digests(source: Path, cluster: Cluster) -> dict[str, Any]:
    """This process's share of the arrays, summed up one at a time; the first one also compares the
    files with their manifest."""
    found_digests = {}
    with open_run(source, checksums=cluster.is_first) as (found, noted):
        for name in sorted(found)[cluster.process_index :: cluster.num_processes]:
            found_digests[name] = _digest(found[name])
        contract = noted.get("identity", {}).get("contract") or None
    return {"digests": found_digests, "contract": contract}


def _digest(stored: Stored) -> str:
    array = np.ascontiguousarray(stored[...])
    digest = hashlib.sha256(f"{array.dtype}{list(array.shape)}".encode())
    raw = array.reshape(-1).view(np.uint8)
    for start in range(0, raw.size, _CHUNK):
        digest.update(raw[start : start + _CHUNK].data)
    return digest.hexdigest()


def _by_all(cluster: Cluster, name: str, make: Callable[[], Any]) -> list[Any]:
    """What each process made, to all; what kept one from it is raised in all of them."""
    try:
        own = {"made": make()}
    except (CheckpointError, FormatError, OSError) as problem:
        own = {"problem": str(problem)}
    every = cluster.gather(name, own, timeout_s=_PATIENCE_S)
    if problems := sorted({told["problem"] for told in every if "problem" in told}):
        raise CheckpointError("; ".join(problems))
    return [told["made"] for told in every]
