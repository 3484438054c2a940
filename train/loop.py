"""The one loop. It reads aloud: plan, restore or materialise, then step, log, evaluate and save."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
from jax.sharding import Mesh

from layers.axes import use_rules
from layers.kernels import use_kernel
from train.accounting import Loads
from train.checkpoint import About, Checkpoints
from train.data.batching import Batches, iterate
from train.distributed.check import check_cluster
from train.distributed.meeting import meet
from train.export.starting import Start, begin
from train.feeding import place_batch, rows_here
from train.guard import Diverged, Streak
from train.hardware import preset
from train.log import Evaluation, Log, forget_evaluation
from train.plan import LoopConfig, Plan, bind, identity, plan
from train.probes import Probes
from train.profiling import Profiler
from train.state import State
from train.supervision import Supervision, supervision
from train.supervision.pace import Pace
from train.supervision.stopping import Stopped
from train.task import Batch, Task

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
    newest save, and first makes up the evaluation that was due there, if a signal came before it.

    Item i of `dataset` is step i's batch, of which a process makes its own rows. `about.data` says
    in plain JSON what is in it: a restart with other data is refused, as one with another task,
    optimizer or `about.init` is, the weights to begin with (`train/export/starting.py`). Raises
    `ClusterError` when the processes do not fit together, `CheckpointError` for a save or weights
    that cannot be gone on from or written, `Diverged` when the guard has seen too many bad updates,
    and `Stopped` when a signal asked for it; after the last two the state is saved.
    """
    about = about or About()
    with supervision() as watch:
        named = identity(task, config, about.data)
        told = named | ({"init": about.init} if about.init else {})
        check_cluster(watch.cluster, identity=told, workdir=workdir)
        with watch.span("restore"):
            start = begin(workdir, about, watch.cluster)
        mesh = config.build_mesh()
        meet(mesh, watch.cluster)
        with jax.set_mesh(mesh), use_rules(config.rules), use_kernel(config.attention):
            planned = plan(task, config, mesh)
            with Checkpoints(
                workdir / "checkpoints", identity=named | start.identity,
                config=config.checkpoint, about=about, cluster=watch.cluster,
            ) as checkpoints:  # fmt: skip
                run = _Run(task, config, mesh, watch, checkpoints, workdir)
                return run.to_the_end(planned, dataset, evaluate, start)


class _Run:
    """One process's part of a run: what a step of the loop consists of."""

    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        mesh: Mesh,
        watch: Supervision,
        checkpoints: Checkpoints,
        workdir: Path,
    ) -> None:
        self.config, self.mesh, self.watch = config, mesh, watch
        self.checkpoints, self.workdir, self.task = checkpoints, workdir, task
        self.pace = Pace(watch.stop, mesh, watch.cluster)
        self.loads = Loads(task)

    def to_the_end(
        self, planned: Plan, dataset: Batches, evaluate: Evaluator | None, start: Start
    ) -> State:
        """Restore or materialise; then step, log, evaluate and save until the last step, or until
        it is asked to stop."""
        config, span, active = self.config, self.watch.span, self.watch.cluster.is_first
        with span("restore"):
            state = self.checkpoints.restore(planned.abstract, fall_back=config.fall_back)
            given = start.arrays(planned.abstract) if state is None else {}
        if state is None:
            with span("compile"):
                state = jax.block_until_ready(planned.materialise(given))
        first, last = int(state.step), config.num_steps
        owed = evaluate is not None and self.checkpoints.owes_evaluation
        if first >= last and not owed:
            return state
        self.open_meter()
        probes = bind(self.task, planned.graphdef, self.mesh)
        profiler = Profiler(config.profile, self.workdir, num_steps=last, active=active)
        with self.log(first, owed) as log, profiler, self.watch.meter as meter:
            if evaluate and owed:
                self.make_up(evaluate, first, probes(state), log)
            meter.begin()
            for step, batch in enumerate(self.batches(dataset, first), start=first + 1):
                load = self.loads.known(batch)
                with contextlib.nullcontext() if load else span("compile"):
                    load = load or self.loads(batch)
                    state, scalars = profiler.run(step, planned.step, state, batch)
                with self.saved_if_diverged(state, step):
                    log.later(step, scalars)
                asked, clock_s = self.pace.next()
                self.done(step, first)
                meter.done(step, load.amounts, flops=load.flops)
                saving = self.checkpoints.due(step, clock_s) or step == last
                due = self.is_to_evaluate(step, saving)
                owed = evaluate is not None and due
                if saving or due or asked:
                    with self.saved_if_diverged(state, step):
                        metrics = log.now(write=saving or due)
                    if evaluate and owed and not asked:
                        found = self.evaluated(evaluate, step, probes(state))
                        asked = owed = found is None
                        metrics |= log.evaluation(step, found) if found else {}
                    if saving or asked:
                        self.save(state, step, metrics, owes_evaluation=owed)
                if asked and (step < last or owed):
                    self.wait_for_save()
                    raise Stopped(step)
        return state

    def make_up(self, evaluate: Evaluator, step: int, probes: Probes, log: Log) -> None:
        """The evaluation that was due at the step that was restored, and was left because the run
        was to stop: recorded at that step, and in its manifest."""
        found = self.evaluated(evaluate, step, probes)
        if found is None:  # it is still owed
            raise Stopped(step)
        metrics = log.evaluation(step, found)
        with self.watch.span("save"):
            self.checkpoints.amend(metrics)

    def log(self, first: int, owes_evaluation: bool) -> Log:
        """What is written and shown; rates stand beside a step's scalars."""
        config = self.config
        if owes_evaluation and self.watch.cluster.is_first:
            forget_evaluation(self.workdir, first)
        log = Log(
            self.workdir, step=first, num_steps=config.num_steps,
            every_steps=config.log_every_steps, see=Streak(config.guard).see,
            active=self.watch.cluster.is_first,
        )  # fmt: skip
        log.beside(self.watch.meter.rates)
        return log

    def open_meter(self) -> None:
        """Go on counting where the run's earlier processes stopped."""
        known = preset(jax.devices()[0].device_kind, self.config.hardware)
        peak = known.peak_flops_per_s and known.peak_flops_per_s * jax.device_count()
        self.watch.meter.open(
            self.workdir, active=self.watch.cluster.is_first, peak_flops_per_s=peak
        )

    def batches(self, dataset: Batches, first: int) -> Iterator[Batch]:
        """This process's rows of the batches that are left, placed."""
        config, size = self.config, dataset.batch_size
        rows = rows_here(size, self.mesh, config.rules)
        made = iterate(dataset, first, config.num_steps, rows=rows, num_workers=config.num_workers)
        for _ in range(first, config.num_steps):
            with self.watch.span("data"):
                batch = next(made)
            yield place_batch(batch, self.mesh, config.rules, rows=rows, batch_size=size)

    @staticmethod
    def is_due(step: int, every_steps: int) -> bool:
        return every_steps > 0 and step % every_steps == 0

    def is_to_evaluate(self, step: int, saving: bool) -> bool:
        """Whether it is time, or a save wants a metric to be ranked by."""
        ranked = saving and bool(self.config.checkpoint.best_metric)
        return (
            step == self.config.num_steps
            or ranked
            or self.is_due(step, self.config.eval_every_steps)
        )

    def done(self, step: int, first: int) -> None:
        """The scalars of the step before this one were read: it is done."""
        if step > first + 1:
            self.watch.watchdog.beat(step - 1)
            self.watch.starting.end()
        self.checkpoints.check()

    def evaluated(self, evaluate: Evaluator, step: int, probes: Probes) -> Evaluation | None:
        """What the evaluator found, None if the run was asked to stop meanwhile: every probe looks
        first."""

        @contextlib.contextmanager
        def looking() -> Iterator[None]:
            if self.pace.is_asked():
                raise _Asked
            yield

        with self.watch.span("evaluation"):
            try:
                return evaluate(step, probes.inside(looking))
            except _Asked:
                return None

    def save(
        self, state: State, step: int, metrics: Mapping[str, float], *, owes_evaluation: bool
    ) -> None:
        """Begin to save; the step before is complete by then."""
        with self.watch.span("save"):
            self.checkpoints.save(state, step, metrics=metrics, owes_evaluation=owes_evaluation)
        self.watch.meter.write()

    def wait_for_save(self) -> None:
        with self.watch.span("save"):
            self.checkpoints.wait()

    @contextlib.contextmanager
    def saved_if_diverged(self, state: State, step: int) -> Iterator[None]:
        """Save before `Diverged` ends the run: no bad update is in the state."""
        try:
            yield
        except Diverged:
            self.save(state, step, {}, owes_evaluation=False)
            self.wait_for_save()
            raise
