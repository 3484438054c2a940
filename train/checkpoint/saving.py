"""Checkpoints behind a small interface: saved in the background, whole or not at all, exact, and
refusing to continue another run.

A step lies in `<folder>/<step>/`: Orbax writes `model` and `optimizer` and renames the step's
folder into place, then `manifest.json` is renamed into it. A step without a manifest was cut short:
it is ignored, and removed when the run goes on.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from train.checkpoint import arrays, manifest
from train.checkpoint.arrays import named
from train.checkpoint.manifest import About, CheckpointError, differences
from train.checkpoint.opening import Manifest, examine, pick
from train.checkpoint.retention import (
    Cadence,
    CheckpointConfig,
    kept,
    remove,
    remove_unless_pinned,
)
from train.distributed.protocol import Alone, Cluster
from train.state import State

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Checkpoints:
    """The steps of one run, which this process (with those of `cluster`) writes.

    `identity` is what must not change between the run's restarts (plain JSON). Without a `config`
    saves are not in the background and the `keep` newest steps stay. Use it as a context manager,
    or call `close`: a process that ends before has only what was complete by then.
    """

    def __init__(
        self,
        folder: Path,
        *,
        identity: Mapping[str, Any],
        keep: int = 2,
        config: CheckpointConfig | None = None,
        about: About | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.identity = manifest.plain(identity)
        self.config = config or CheckpointConfig(keep=keep, background=False)
        self.cluster: Cluster = cluster or Alone()
        self.blocked_s = 0.0  # the loop's time in all saves so far, waiting for one before included
        self._about = about or About()
        self._cadence = Cadence(self.config)
        self._writer = arrays.Writer(
            num_processes=self.cluster.num_processes, timeout_s=self.config.timeout_s
        )
        self._thread: threading.Thread | None = None
        self._problem: CheckpointError | None = None
        self._last: int | None = None
        self._told = False
        self._metrics: dict[int, dict[str, float]] = {}
        self.owes_evaluation = False  # of the step that was restored

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        try:  # what ends the run is told, not what a save that was under way met besides
            self.close()
        except CheckpointError as problem:
            logging.error("%s", problem)

    def steps(self) -> list[int]:
        """Complete steps, oldest first."""
        return manifest.complete(self.folder)

    def due(self, step: int, clock_s: float | None = None) -> bool:
        """Whether to save after this step, asked once a step, in every process.

        With `every_minutes` and several processes, `clock_s` is one clock that they agree on (see
        `Cadence`); one process may leave it out.
        """
        if clock_s is None and self.config.every_minutes:
            if self.cluster.num_processes > 1:
                raise ValueError(
                    "every_minutes needs a clock that all processes agree on: give clock_s"
                )
            clock_s = time.monotonic()
        return self._cadence.due(step, clock_s)

    def save(
        self,
        state: State,
        step: int,
        *,
        metrics: Mapping[str, float] | None = None,
        data_position: Mapping[str, Any] | None = None,
        owes_evaluation: bool = False,
    ) -> None:
        """Copy the state to the host and write it in the background; returns after the copy, once
        the save before is complete.

        `metrics` are noted in the manifest, and `best_metric` is looked up there. `data_position`
        says where the data goes on; the order of data is a function of the step, so the step is
        the default. `owes_evaluation` notes that metrics of it are still to come (see `amend`). A
        step just saved or restored is not written again. Raises `CheckpointError` for the save
        *before* when that failed.
        """
        started = time.monotonic()
        self.wait()
        if step == self._last:
            return
        target = self.folder / str(step)
        leaves = named(state)
        if not owes_evaluation:
            self._look_for_best(step, metrics or {})
        content = {
            "step": step, "metrics": {k: float(v) for k, v in (metrics or {}).items()},
            "data_position": {"step": step} if data_position is None else data_position,
            "owes_evaluation": owes_evaluation, "arrays": arrays.table(leaves),
        }  # fmt: skip
        try:
            if self.cluster.is_first and target.exists():  # cut short
                remove(target)
            self._writer.begin(target, leaves)
        except Exception as problem:
            raise self._failure(step, problem) from problem
        self._thread = threading.Thread(
            target=self._finish, args=(target, content), name=f"checkpoint {step}"
        )
        self._thread.start()
        if not self.config.background:
            self.wait()
        self.blocked_s += time.monotonic() - started

    def _look_for_best(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell once of a step that cannot be a best one: the metric's name may be misspelt."""
        best = self.config.best_metric
        if best and best not in metrics and not self._told:
            self._told = True
            have = ", ".join(sorted(metrics)) or "none"
            logging.warning("step %d has no %s to rank it by; it has: %s", step, best, have)

    def amend(self, metrics: Mapping[str, float]) -> None:
        """Add to the manifest of the step that was restored what the evaluation that it owed has
        found, whole or not at all, and rank the step by it; every process calls it."""
        step = self._last
        if step is None or not self.owes_evaluation:
            raise ValueError("no step that owes an evaluation was restored: nothing to amend")
        target = self.folder / str(step)
        self._metrics[step] |= {k: float(v) for k, v in metrics.items()}
        self._look_for_best(step, self._metrics[step])
        if self.cluster.is_first:
            changes = {"metrics": self._metrics[step], "owes_evaluation": False}
            try:
                manifest.write(target, {**manifest.read(target), **changes})
            except OSError as problem:
                raise self._failure(step, problem) from problem
            self._retain()
        self.cluster.barrier("checkpoint amended", timeout_s=self.config.timeout_s)
        self.owes_evaluation = False

    def check(self) -> None:
        """Raise `CheckpointError` when the save in the background has failed; never waits."""
        if self._thread is None or not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Return when no save is under way; raises `CheckpointError` when it failed, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem

    def close(self) -> None:
        """`wait`, and release Orbax's threads."""
        try:
            self.wait()
        finally:
            self._writer.close()

    def _finish(self, target: Path, content: dict[str, Any]) -> None:
        """In the background: wait for the arrays, sum them up, write the manifest, forget."""
        step, timeout_s = content["step"], self.config.timeout_s
        try:
            self._writer.finish()
            files = self._sums(target)
            if self.cluster.is_first:
                manifest.write(target, {**content, **self._origin(), "files": files})
            self.cluster.barrier("checkpoint saved", timeout_s=timeout_s)
        except BaseException as problem:
            self._problem = self._failure(step, problem)
            self._problem.__cause__ = problem
            if self.cluster.num_processes == 1:  # the space of what cannot be used
                for path in [*arrays.leftovers(self.folder), target]:
                    shutil.rmtree(path, ignore_errors=True)
            return
        self._last = step
        self._metrics[step] = content["metrics"]
        if self.cluster.is_first:
            self._retain()

    def _sums(self, target: Path) -> dict[str, Any]:
        """Size and checksum of every file; each process reads its share of them."""
        timeout_s, cluster = self.config.timeout_s, self.cluster
        sizes = manifest.listing(target) if cluster.is_first else {}
        sizes = cluster.gather("files of a checkpoint", sizes, timeout_s=timeout_s)[0]
        own = manifest.share(sizes, cluster.process_index, cluster.num_processes)
        sums = {file: manifest.crc32(target / file) for file in own}
        gathered = cluster.gather("sums of a checkpoint", sums, timeout_s=timeout_s)
        found = {file: value for part in gathered for file, value in part.items()}
        return {file: {"bytes": sizes[file], "crc32": found[file]} for file in sorted(sizes)}

    def _origin(self) -> dict[str, Any]:
        config = self._about.config
        return {
            "identity": self.identity, "identity_hash": manifest.hash_of(self.identity),
            "config": config, "config_hash": manifest.hash_of(config) if config else None,
            "token_contract": self._about.token_contract, "init": self._about.init,
            "git_revision": manifest.git_revision(), "versions": manifest.versions(),
            "num_processes": self.cluster.num_processes, "num_devices": jax.device_count(),
            "time": time.time(),
        }  # fmt: skip

    def _failure(self, step: int, problem: BaseException) -> CheckpointError:
        text = arrays.first_line(problem)
        codes = {getattr(problem, "errno", None)}
        full = bool(codes & set(_FULL)) or any(
            f"os_error_code='{code}'" in str(problem) or os.strerror(code) in str(problem)
            for code in _FULL
        )
        remedy = "free space there or keep fewer steps" if full else "see the cause above"
        good = [s for s in self.steps() if s != step]
        rest = f"step {good[-1]} is complete" if good else "no step is complete yet"
        return CheckpointError(
            f"step {step} could not be saved in {self.folder} ({text}): {remedy}; {rest}, and a "
            "restart goes on from there"
        )

    def _retain(self) -> None:
        """Remove what no rule keeps and nobody reads; a step that cannot be removed is told."""
        for path in arrays.leftovers(self.folder):
            shutil.rmtree(path, ignore_errors=True)
        there = self.steps()
        for step in there:
            if step not in self._metrics:
                try:
                    self._metrics[step] = manifest.read(self.folder / str(step))["metrics"]
                except CheckpointError as problem:
                    logging.error("%s; it is no best step", problem)
                    self._metrics[step] = {}
        stay = kept({step: self._metrics[step] for step in there}, self.config)
        for step in set(there) - stay:
            try:
                remove_unless_pinned(self.folder / str(step), self.config.pin_hours)
            except OSError as problem:
                logging.error("%s cannot be removed (%s)", self.folder / str(step), problem)

    def restore(
        self, abstract: State, *, fall_back: bool = False, checksums: bool = True
    ) -> State | None:
        """The newest complete step in the shapes and shardings of `abstract`, whatever mesh and
        how many processes wrote it; None before the first.

        Raises `CheckpointError` when it was written under another identity or holds other arrays
        (all of them are listed, and none is read), and `DamageError` when its files are not those
        that were written: with `fall_back` such a step is set aside as `<step>.damaged`, loudly,
        and the newest whole one is used. `checksums` false looks at the sizes alone.
        """
        self.wait()
        timeout_s = self.config.timeout_s
        if self.cluster.is_first:
            self._clean()
        there = self.cluster.gather("steps to restore", self.steps(), timeout_s=timeout_s)[0]
        if not there:
            return None
        wanted = named(abstract)
        table = arrays.table(wanted)

        def require(target: Path, noted: Manifest) -> None:
            if lines := differences(noted["identity"], self.identity):
                raise CheckpointError(
                    f"{target} was trained under another config ({'; '.join(lines)}): "
                    "give the old values, or another --workdir"
                )
            if lines := arrays.mismatches(noted["arrays"], table):
                raise CheckpointError(
                    f"{target} holds other arrays than this run ({'; '.join(lines)}): nothing was "
                    "read; give the config that wrote it, or load it in part"
                )

        def examined(target: Path) -> tuple[Manifest | None, list[str]]:
            noted, own = examine(
                target, require=require, checksums=checksums,
                share=(self.cluster.process_index, self.cluster.num_processes),
            )  # fmt: skip
            together = self.cluster.gather("damage found", own, timeout_s=timeout_s)
            return noted, sorted({line for lines in together for line in lines})

        step, noted, damaged = pick(self.folder, there, examined=examined, fall_back=fall_back)
        if self.cluster.is_first:
            for bad in damaged:
                aside = self.folder / f"{bad}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                os.rename(self.folder / str(bad), aside)
        leaves = arrays.read(self.folder / str(step), wanted)
        self.cluster.barrier("checkpoint restored", timeout_s=timeout_s)
        self._last, self._metrics[step] = step, dict(noted["metrics"])
        self.owes_evaluation = noted.get("owes_evaluation", False)
        return jax.tree.unflatten(jax.tree.structure(abstract), list(leaves.values()))

    def _clean(self) -> None:
        """Remove what was cut short by the death of the process before."""
        cut_short = [
            p for p in manifest.step_folders(self.folder) if not (p / manifest.NAME).exists()
        ]
        for path in [*cut_short, *arrays.leftovers(self.folder)]:
            shutil.rmtree(path, ignore_errors=True)
        for mark in self.folder.glob(f"*/{manifest.DOOMED}"):
            mark.unlink(missing_ok=True)
