"""The one loop. It reads aloud: plan, restore or materialise, then step, log, save and evaluate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from layers.axes import axes_tree, use_rules
from train import guard as guards
from train import mesh as meshes
from train import optimizer as optimizers
from train.checkpoint import Checkpoints
from train.data.batching import Batches, iterate
from train.feeding import place_batch, rows_here
from train.guard import GuardConfig, Streak
from train.log import Evaluation, Log
from train.optimizer import OptimizerConfig
from train.state import State, shardings
from train.step import Step, gradients_of, one_step
from train.task import Task

Probes = Mapping[str, Callable[..., Any]]
Evaluator = Callable[[int, Probes], Evaluation]
_CADENCE = (
    "save_every_steps",
    "keep",
    "log_every_steps",
    "eval_every_steps",
    "num_workers",
    "mesh",
    "microbatches",
    "guard",
)


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long, how often, where and by which optimizers.

    A cadence of 0 leaves the thing to the last step; `ema_decay` 0 keeps no average. A step folds
    over `microbatches` parts of its batch (1: takes it whole), for memory; it stays one update.
    """

    num_steps: int
    optimizers: Mapping[str, OptimizerConfig]
    seed: int = 0
    save_every_steps: int = 500
    keep: int = 2
    log_every_steps: int = 20
    eval_every_steps: int = 0
    ema_decay: float = 0.0
    microbatches: int = 1
    guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)
    num_workers: int = 0
    mesh: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"data": -1})
    rules: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"B": "data"})


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that is known before the first number: shapes, places and the two programs."""

    graphdef: Any
    abstract: State
    materialise: Callable[[], State]
    step: Step


def plan(task: Task, config: LoopConfig, mesh: Mesh) -> Plan:
    """Shape the state by `eval_shape`, place it by the rules, and jit init and step around it."""
    module = nnx.eval_shape(lambda: task.init(nnx.Rngs(config.seed)))
    graphdef, params, _ = nnx.split(module, nnx.Param, ...)
    axes = axes_tree(module)
    optimizer = optimizers.build(
        config.optimizers, task.group, nnx.to_pure_dict(params),
        axes=axes, summed=axes_tree(module, field="summed"), num_steps=config.num_steps,
    )  # fmt: skip

    def init() -> State:
        _, params, extra = nnx.split(task.init(nnx.Rngs(config.seed)), nnx.Param, ...)
        params, extra = nnx.to_pure_dict(params), nnx.to_pure_dict(extra)
        ema = jax.tree.map(jnp.copy, params) if config.ema_decay else {}
        opt, step = optimizer.init(params), jnp.zeros((), jnp.int32)
        return State(step, params, extra, opt, ema, guards.fresh())

    abstract = jax.eval_shape(init)
    places = shardings(abstract, axes, mesh, config.rules)
    placed = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, places
    )
    step = one_step(
        gradients_of(task, graphdef, axes, microbatches=config.microbatches),
        optimizer, seed=config.seed, ema_decay=config.ema_decay, guard=config.guard,
    )  # fmt: skip
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, None))
    return Plan(graphdef, placed, jax.jit(init, out_shardings=places), jitted)


def bind(task: Task, graphdef: Any) -> Callable[[State], Probes]:
    """The task's probes, jitted once, as functions of arrays alone for the state they are given."""
    jitted = {
        name: jax.jit(lambda w, e, *xs, _probe=probe: _probe(nnx.merge(graphdef, w, e), *xs))
        for name, probe in task.probes().items()
    }

    def for_state(state: State) -> Probes:
        return {
            name: lambda *xs, _f=f: _f(state.weights, state.extra, *xs)
            for name, f in jitted.items()
        }

    return for_state


def identity(
    task: Task, config: LoopConfig, data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What must not change between restarts: the task, the data and the loop, without the cadences,
    the mesh, how a batch is cut for it, and the guard."""
    kept = {k: v for k, v in dataclasses.asdict(config).items() if k not in _CADENCE}
    fields = dataclasses.asdict(task)  # type: ignore[call-overload]  # tasks are dataclasses
    return {"task": type(task).__name__, **fields, "data": data, "loop": kept}


def _due(step: int, every_steps: int) -> bool:
    return every_steps > 0 and step % every_steps == 0


def train(
    task: Task,
    dataset: Batches,
    config: LoopConfig,
    workdir: Path,
    *,
    evaluate: Evaluator | None = None,
    data: Mapping[str, Any] | None = None,
) -> State:
    """Train to `config.num_steps` and return the last state; a run that was killed goes on from its
    newest save. Raises `Diverged` when the guard has seen too many bad updates.

    Item i of `dataset` is step i's batch, of which a process makes its own rows. `data` says in
    plain JSON what is in it: a restart with other data is refused, as one with another task or
    optimizer is.
    """
    mesh = meshes.build(config.mesh)
    with jax.set_mesh(mesh), use_rules(config.rules):
        planned = plan(task, config, mesh)
        checkpoints = Checkpoints(
            workdir / "checkpoints", identity=identity(task, config, data), keep=config.keep
        )
        state = checkpoints.restore(planned.abstract)
        state = planned.materialise() if state is None else state
        first = int(state.step)
        if first >= config.num_steps:
            return state
        probes = bind(task, planned.graphdef)
        size = dataset.batch_size
        rows = rows_here(size, mesh, config.rules)
        batches = iterate(
            dataset, first, config.num_steps, rows=rows, num_workers=config.num_workers
        )
        with Log(
            workdir, step=first, num_steps=config.num_steps, every_steps=config.log_every_steps,
            see=Streak(config.guard).see,
        ) as log:  # fmt: skip
            for step, batch in enumerate(batches, start=first + 1):
                placed = place_batch(batch, mesh, config.rules, rows=rows, batch_size=size)
                state, scalars = planned.step(state, placed)
                log.later(step, scalars)
                last = step == config.num_steps
                evaluating = last or _due(step, config.eval_every_steps)
                saving = last or _due(step, config.save_every_steps)
                metrics = log.now() if saving or evaluating else {}
                if evaluate and evaluating:
                    log.evaluation(step, evaluate(step, probes(state)))
                if saving:
                    checkpoints.save(state, step, metrics=metrics)
    return state
