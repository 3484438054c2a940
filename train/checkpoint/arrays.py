"""The arrays of a state by name, and Orbax, which writes and reads them in two parts.

A name is the path to an array, `params/stack/up/kernel`. `model` is what readers need (parameters,
other variables, averages); `optimizer` is everything else a state has.
"""

from __future__ import annotations

import contextlib
import logging as standard_logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from train.checkpoint.manifest import CheckpointError

MODEL, OPTIMIZER = "model", "optimizer"
_OF_MODEL = ("params", "extra", "ema")
_LEFTOVER = ".orbax-checkpoint-tmp"


def _key(entry: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    raise TypeError(f"a checkpoint cannot name {entry!r}")


def named(tree: Any) -> dict[str, Any]:
    """Every leaf of a state under its path, in the order of `jax.tree.leaves`."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = "/".join(map(_key, path))
        if name in found:
            raise CheckpointError(f"two arrays are both called {name}: rename one")
        found[name] = leaf
    return found


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Names back to nested dicts, their keys all strings."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *path, last = name.split("/")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def part_of(name: str) -> str:
    """Which of the two parts holds an array."""
    return MODEL if name.split("/", 1)[0] in _OF_MODEL else OPTIMIZER


def table(leaves: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Name to [dtype, shape]: what a manifest says of its arrays."""
    found = {}
    for name, leaf in leaves.items():
        like = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        found[name] = [str(like.dtype), list(like.shape)]
    return found


def mismatches(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Every array that is missing, too many, or of another shape or dtype, one line each."""
    lines = []
    for name in sorted({*saved, *wanted}):
        if name not in saved:
            lines.append(f"{name} is missing there")
        elif name not in wanted:
            lines.append(f"{name} is there and not wanted")
        elif saved[name] != wanted[name]:
            there, here = (f"{t[0]}{t[1]}" for t in (saved[name], wanted[name]))
            lines.append(f"{name} is {there} there and {here} here")
    return lines


def _handler() -> ocp.PyTreeCheckpointHandler:
    # Trained weights shrink by 7 %, which is not worth the time of the host's cores.
    return ocp.PyTreeCheckpointHandler(use_compression=False)


def _saved_as(leaf: Any) -> Any:
    """Numbers as arrays, so that their dtype stays; numpy's are copied, for they may change."""
    return leaf if isinstance(leaf, jax.Array) else np.array(leaf)


def _restore_args(leaf: Any) -> ocp.RestoreArgs:
    if not isinstance(leaf, jax.ShapeDtypeStruct | jax.Array):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=leaf.shape)


def _restored_as(value: Any, leaf: Any) -> Any:
    if isinstance(leaf, bool | int | float):
        return value.item()
    return value[()] if isinstance(leaf, np.generic) else value


def read(target: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """These arrays of a step: on the devices where `wanted` has JAX arrays or their shapes, as
    numpy or Python numbers where it has those.

    Waits for no other process. Raises `CheckpointError` when Orbax cannot read them.
    """
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"reader_{me}"
    )
    reader = ocp.Checkpointer(_handler(), multiprocessing_options=alone)
    found: dict[str, Any] = {}
    for part in (MODEL, OPTIMIZER):
        leaves = {name: leaf for name, leaf in wanted.items() if part_of(name) == part}
        if not leaves:
            continue
        args = nest({name: _restore_args(leaf) for name, leaf in leaves.items()})
        how = ocp.args.PyTreeRestore(
            item=nest(dict.fromkeys(leaves, 0)), restore_args=args, partial_restore=True
        )
        try:
            found |= named(reader.restore(target / part, args=how))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as problem:
            raise CheckpointError(
                f"the arrays of {target / part} cannot be read ({first_line(problem)}): "
                "fall back to an earlier step"
            ) from problem
    return {name: _restored_as(found[name], leaf) for name, leaf in wanted.items()}


def first_line(problem: BaseException) -> str:
    """An exception's kind and the beginning of what it says."""
    text = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {text[0][:300]}" if text else type(problem).__name__


class Writer:
    """Orbax's asynchronous checkpointer; every process writes the shards that it holds.

    Its barriers go through the coordination service, with `timeout_s`, and never over the devices.
    """

    def __init__(self, *, num_processes: int, timeout_s: int) -> None:
        self._timeout_s = timeout_s
        self._quiet = contextlib.ExitStack()
        processes = set(range(num_processes)) if num_processes > 1 else None
        handlers: dict[str, Any] = {MODEL: _handler(), OPTIMIZER: _handler()}
        self._orbax = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(**handlers),
            async_options=ocp.options.AsyncOptions(timeout_secs=timeout_s),
            multiprocessing_options=ocp.options.MultiprocessingOptions(active_processes=processes),
        )

    def begin(self, target: Path, leaves: Mapping[str, Any]) -> None:
        """Copy the arrays to the host and return; `finish` waits until they are written."""
        parts = {}
        for part in (MODEL, OPTIMIZER):
            own = {n: _saved_as(leaf) for n, leaf in leaves.items() if part_of(n) == part}
            parts[part] = ocp.args.PyTreeSave(nest(own))
        self._quiet.enter_context(_one_report())  # Orbax's threads may fail before `finish`
        try:
            self._orbax.save(target, args=ocp.args.Composite(**parts))
        except BaseException:
            self._settle()
            raise

    def finish(self) -> None:
        """Wait until the step's folder has been renamed into place, in all processes."""
        try:
            self._orbax.wait_until_finished()
        finally:
            self._settle()

    def _settle(self) -> None:
        """Wait for what still writes after a failure, since Orbax raises at the first: it would
        recreate the folder that the caller is about to remove."""
        manager: Any = getattr(self._orbax, "_async_manager", None)
        for future in getattr(manager, "_commit_futures", None) or ():
            with contextlib.suppress(Exception):
                future.result(timeout=self._timeout_s)
        self._quiet.close()

    def close(self) -> None:
        """Release Orbax's threads."""
        self._orbax.close()


def leftovers(folder: Path) -> list[Path]:
    """What a save or a removal that was cut short has left behind."""
    return [p for p in folder.glob("*") if _LEFTOVER in p.name or p.name.endswith(".deleted")]


@contextlib.contextmanager
def _one_report() -> Iterator[None]:
    """Keep Orbax from logging four tracebacks of a failure that is raised anyway."""
    logger = standard_logging.getLogger("absl")

    def other(record: standard_logging.LogRecord) -> bool:
        return not (record.levelno >= standard_logging.ERROR and "orbax" in record.pathname)

    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
