"""What a run is before its first number: the shapes and places of its state, and its programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from layers.axes import axes_tree, partition_spec
from layers.block import use_remat
from train import guard as guards
from train import mesh as meshes
from train import optimizer as optimizers
from train.checkpoint.arrays import named
from train.checkpoint.retention import CheckpointConfig
from train.guard import GuardConfig
from train.hardware import preset
from train.optimizer import OptimizerConfig
from train.probes import Probes, Programs
from train.profiling import ProfileConfig
from train.readings import Readings
from train.state import State, shardings
from train.step import gradients_of, one_step
from train.supervision.watchdog import Deadlines
from train.task import Task

_FREE = (
    "checkpoint", "log_every_steps", "eval_every_steps", "num_workers", "mesh", "dcn_mesh",
    "attention", "microbatches", "guard", "deadlines", "fall_back", "hardware", "profile",
)  # fmt: skip  # what a restart may change


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long, how often, where and by which optimizers.

    A cadence of 0 leaves the thing to the last step; `ema_decay` 0 keeps no average. A step folds
    over `microbatches` parts of its batch (1: takes it whole; 0: as few as make them no larger than
    the device kind's `microbatch`), for memory; it stays one update.
    `mesh` gives the sizes of the axes and `dcn_mesh` how the slow network between slices or hosts
    cuts them (see `train.mesh.build`); an empty mesh is the usual one of the device kind, of which
    `hardware` corrects what `train.hardware.preset` knows. `attention` is one of
    `layers.kernels.KERNELS`. With `fall_back` a damaged checkpoint is set aside and an earlier one
    used.
    """

    num_steps: int
    optimizers: Mapping[str, OptimizerConfig]
    seed: int = 0
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    fall_back: bool = False
    log_every_steps: int = 20
    eval_every_steps: int = 0
    ema_decay: float = 0.0
    microbatches: int = 1
    guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)
    deadlines: Deadlines = dataclasses.field(default_factory=Deadlines)
    profile: ProfileConfig = dataclasses.field(default_factory=ProfileConfig)
    num_workers: int = 0
    attention: str = "auto"
    hardware: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mesh: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"data": -1})
    dcn_mesh: Mapping[str, int] = dataclasses.field(default_factory=dict)
    rules: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"B": "data"})

    def build_mesh(self, devices: Sequence[Any] | None = None, *, kind: str = "") -> Mesh:
        """The mesh over all devices of the run, or over these of another machine; raises
        `ValueError` when it does not use each once."""
        devices = jax.devices() if devices is None else devices
        shape = self.mesh
        if not shape:
            known = preset(kind or devices[0].device_kind, self.hardware)
            shape = known.mesh(len(devices), meshes.granules(devices)[1])
        return meshes.build(shape, devices, dcn=self.dcn_mesh)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that is known before the first number: shapes, places and the two programs.

    `materialise` draws the state, but for the arrays that it is given by name (`params/...`,
    `extra/...`), whose memory it takes.
    """

    graphdef: Any
    abstract: State
    materialise: Callable[..., State]
    step: Callable[..., tuple[State, Readings]]


def plan(task: Task, config: LoopConfig, mesh: Mesh) -> Plan:
    """Shape the state by `eval_shape`, place it by the rules, and jit init and step around it."""
    module = nnx.eval_shape(lambda: task.init(nnx.Rngs(config.seed)))
    graphdef, params, _ = nnx.split(module, nnx.Param, ...)
    axes = axes_tree(module)
    optimizer = optimizers.build(
        config.optimizers, task.group, nnx.to_pure_dict(params),
        axes=axes, summed=axes_tree(module, field="summed"), num_steps=config.num_steps,
    )  # fmt: skip

    def init(given: Mapping[str, Any]) -> State:
        _, params, extra = nnx.split(task.init(nnx.Rngs(config.seed)), nnx.Param, ...)
        drawn = {"params": nnx.to_pure_dict(params), "extra": nnx.to_pure_dict(extra)}
        leaves = [given.get(name, leaf) for name, leaf in named(drawn).items()]
        begun = jax.tree.unflatten(jax.tree.structure(drawn), leaves)
        params, extra = begun["params"], begun["extra"]
        ema = jax.tree.map(jnp.copy, params) if config.ema_decay else {}
        opt, step = optimizer.init(params), jnp.zeros((), jnp.int32)
        return jax.tree.map(_strong, State(step, params, extra, opt, ema, guards.fresh()))

    abstract = jax.eval_shape(init, {})
    places = shardings(abstract, axes, mesh, config.rules)
    placed = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, places
    )
    known = preset(mesh.devices.flat[0].device_kind, config.hardware)

    def gradients(params: Any, extra: Any, batch: Any, key: jax.Array) -> Any:
        count = config.microbatches or known.microbatches(_rows_a_chip(batch, mesh, config))
        with use_remat(known.remat, unroll=known.unroll):  # it is read while this is traced
            found = gradients_of(task, graphdef, axes, microbatches=count)
            return found(params, extra, batch, key)

    step = one_step(
        gradients, optimizer, seed=config.seed, ema_decay=config.ema_decay, guard=config.guard
    )

    def read(state: State, batch: Any) -> tuple[State, Readings]:
        state, scalars = step(state, batch)
        return state, Readings.of(scalars)

    jitted = jax.jit(read, donate_argnums=0, out_shardings=(places, None))
    drawn = jax.jit(init, out_shardings=places, donate_argnums=0)
    return Plan(graphdef, placed, lambda given=None: drawn(given or {}), jitted)


def _rows_a_chip(batch: Any, mesh: Mesh, config: LoopConfig) -> int:
    (num_rows,) = shape = next(iter(batch.values())).shape[:1]
    spec = partition_spec("B", shape, config.rules, dict(mesh.shape))
    return NamedSharding(mesh, spec).shard_shape((num_rows,))[0]


def _strong(array: Any) -> Any:
    """Without JAX's weak type, that of what was filled with a number of Python's: a step's results
    and what a save gives back have none, so the step would be compiled again for them, and what a
    restart computes in bfloat16 would be rounded otherwise."""
    return array.astype(array.dtype) if array.weak_type else array


def bind(task: Task, graphdef: Any, mesh: Mesh) -> Callable[[State], Probes]:
    """The task's probes, compiled once, for each state that they are given. Every process gets all
    of what they return."""
    programs = Programs(task, graphdef, whole=NamedSharding(mesh, PartitionSpec()))
    return lambda state: Probes(programs, state.weights, state.extra)


def identity(
    task: Task, config: LoopConfig, data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What must not change between restarts: the task, the data and the loop, without the cadences,
    the mesh, how a batch is cut for it, the guard, and what the backward pass keeps (`remat`)."""
    kept = {k: v for k, v in dataclasses.asdict(config).items() if k not in _FREE}
    fields = dataclasses.asdict(task)  # type: ignore[call-overload]  # tasks are dataclasses
    if isinstance(model := fields.get("model"), dict):
        fields["model"] = {k: v for k, v in model.items() if k != "remat"}
    return {"task": type(task).__name__, **fields, "data": data, "loop": kept}
