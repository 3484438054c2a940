"""The one loop. It reads aloud: plan, restore or materialise, then step, log, evaluate and save."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from layers.axes import use_rules
from layers.kernels import use_kernel
from train.checkpoint import About, Checkpoints
from train.cluster_check import check_cluster
from train.data.batching import Batches, iterate
from train.feeding import place_batch, rows_here
from train.guard import Diverged, Streak
from train.log import Evaluation, Log
from train.pace import Pace
from train.plan import LoopConfig, Plan, Probes, bind, identity, plan
from train.state import State
from train.stopping import Stopped
from train.supervision import Supervision, supervision
from train.task import Task

Evaluator = Callable[[int, Probes], Evaluation]


class _Asked(Exception):
    """An evaluation was left because the run is to stop."""


def train(
    task: Task,
    dataset: Batches,
    config: LoopConfig,
    workdir: Path,
    *,
    evaluate: Evaluator | None = None,
    about: About | None = None,
) -> State:
    """Train to `config.num_steps` and return the last state; a run that was killed goes on from its
    newest save.

    Item i of `dataset` is step i's batch, of which a process makes its own rows. `about.data` says
    in plain JSON what is in it: a restart with other data is refused, as one with another task or
    optimizer is. Raises `ClusterError` when the processes do not fit together, `CheckpointError`
    for a save that cannot be gone on from or written, `Diverged` when the guard has seen too many
    bad updates, and `Stopped` when a signal asked for it; after the last two the state is saved.
    """
    about = about or About()
    with supervision() as watch:
        named = identity(task, config, about.data)
        with watch.watchdog.phase("init"):
            check_cluster(watch.cluster, identity=named, workdir=workdir)
        mesh = config.build_mesh()
        run = _Run(task, config, workdir, mesh, watch)
        with jax.set_mesh(mesh), use_rules(config.rules), use_kernel(config.attention):
            planned = plan(task, config, mesh)
            with Checkpoints(
                workdir / "checkpoints", identity=named, config=config.checkpoint, about=about,
                cluster=watch.cluster,
            ) as checkpoints:  # fmt: skip
                state = run.begin(planned, checkpoints)
                return run.go_on(state, planned, checkpoints, dataset, evaluate)


class _Run:
    """One process's part of a run."""

    def __init__(
        self, task: Task, config: LoopConfig, workdir: Path, mesh: Mesh, watch: Supervision
    ) -> None:
        self.task, self.config, self.workdir = task, config, workdir
        self.mesh, self.watch = mesh, watch
        self.pace = Pace(watch.stop, mesh, watch.cluster)

    def begin(self, planned: Plan, checkpoints: Checkpoints) -> State:
        """The newest save, or a fresh state."""
        with self.watch.watchdog.phase("restore"):
            state = checkpoints.restore(planned.abstract, fall_back=self.config.fall_back)
        if state is None:
            with self.watch.watchdog.phase("compile"):
                state = jax.block_until_ready(planned.materialise())
        return state

    def go_on(
        self,
        state: State,
        planned: Plan,
        checkpoints: Checkpoints,
        dataset: Batches,
        evaluate: Evaluator | None,
    ) -> State:
        """Step to the end."""
        config, phase, first = self.config, self.watch.watchdog.phase, int(state.step)
        if first >= config.num_steps:
            return state
        probes = bind(self.task, planned.graphdef, self.mesh)
        with Log(
            self.workdir, step=first, num_steps=config.num_steps,
            every_steps=config.log_every_steps, see=Streak(config.guard).see,
            active=self.watch.cluster.is_first,
        ) as log:  # fmt: skip
            for step, batch in enumerate(self.batches(dataset, first), start=first + 1):
                with phase("compile") if self.is_new(batch) else contextlib.nullcontext():
                    state, scalars = planned.step(state, batch)
                self.pace.ask()
                try:
                    log.later(step, scalars)
                except Diverged:
                    self.save(checkpoints, state, step, {})
                    raise
                stopping = self.heard(step - 1, first)
                checkpoints.check()
                last = step == config.num_steps
                saving = checkpoints.due(step, self.pace.clock_s) or last or stopping
                evaluating = evaluate and not stopping and self.evaluating(step, saving)
                metrics = log.now() if saving or evaluating else {}
                if evaluate and evaluating:
                    try:
                        with phase("evaluation"):
                            found = evaluate(step, self.watched(probes(state)))
                            metrics |= log.evaluation(step, found)
                    except _Asked:
                        saving = stopping = True
                if saving:
                    with phase("save"):
                        checkpoints.save(state, step, metrics=metrics)
                if stopping and not last:
                    self.leave(checkpoints, step)
        return state
