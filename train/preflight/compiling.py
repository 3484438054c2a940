"""A run's programs compiled before there is a machine: do they fit, and how fast can they be?"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding

from layers.axes import Rules, partition_spec, use_rules
from layers.kernels import use_kernel
from train.plan import LoopConfig, Plan, plan
from train.preflight.work import Work, work
from train.task import Task

REMATERIALISED = "Involuntary full rematerialization"  # what XLA's partitioner says to stderr


KINDS = ("v5e", "v5p", "v6e", "h100", "cpu")  # of `train.hardware.PRESETS`


def has_libtpu() -> bool:
    """Whether the compiler for TPUs is installed here."""
    return importlib.util.find_spec("libtpu") is not None or "TPU_LIBRARY_PATH" in os.environ


@dataclasses.dataclass(frozen=True)
class Target:
    """`v5p:8x8x8` is a slice of TPUs, compiled for by libtpu; `h100:64` and `cpu:8` are so many
    chips, compiled for emulated CPU devices."""

    kind: str
    size: str

    @property
    def is_tpu(self) -> bool:
        """Whether libtpu compiles for it."""
        return self.kind.startswith("v")

    @property
    def num_devices(self) -> int:
        """How many chips it has."""
        return math.prod(int(size) for size in self.size.split("x"))

    def devices(self) -> Sequence[Any]:
        """Its devices, described (TPU) or emulated: then `jax_num_cpu_devices` is to be set before
        JAX is first used. Raises `ValueError` naming the remedy when it cannot be described."""
        if not self.is_tpu:
            devices = jax.devices("cpu")
            if len(devices) < self.num_devices:
                raise ValueError(
                    f"{self.kind}:{self.size} needs {self.num_devices} emulated devices and there "
                    f"are {len(devices)}; set JAX_NUM_CPU_DEVICES"
                )
            return devices[: self.num_devices]
        if not has_libtpu():
            raise ValueError(
                "TPU targets need libtpu: pip install -c constraints.txt '.[preflight]'"
            )
        name = f"{self.kind}:{self.size}"
        try:
            return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
        except Exception as problem:  # whatever the plug-in raises
            raise ValueError(f"{name} cannot be described: {problem}") from problem


def target(text: str) -> Target:
    """`kind:size`; raises `ValueError` naming the known kinds, or how a size looks."""
    kind, _, size = text.partition(":")
    if kind not in KINDS:
        raise ValueError(f"target {text!r}: there is no kind {kind!r}; give {', '.join(KINDS)}")
    wanted = r"\d+(x\d+){1,2}" if kind.startswith("v") else r"\d+"
    if not re.fullmatch(wanted, size):
        example = {"v5p": "v5p:8x8x8"}.get(kind, f"{kind}:{'16x16' if kind[0] == 'v' else '8'}")
        raise ValueError(f"target {text!r}: give a size as in {example}")
    return Target(kind, size)


@dataclasses.dataclass(frozen=True)
class Generation:
    """What a trained model is asked: `function(probes, *arrays)` with the arrays' shapes and
    letters. `updated` is the index of the array that it has back changed (a cache), or -1."""

    what: str
    function: Callable[..., Any]
    arrays: tuple[Any, ...]
    axes: tuple[Any, ...]
    updated: int = -1


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program: bytes on each chip, what it does, what the compiler warned of.

    `problem` is the compiler's own words where it ran out of memory; nothing else is known then
    but `needed_bytes`.
    """

    seconds: float
    argument_bytes: int = 0
    temporary_bytes: int = 0
    needed_bytes: int = 0
    work: Work | None = None
    warnings: tuple[str, ...] = ()
    problem: str = ""


@contextlib.contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """What C++ writes to the process's stderr inside the block, which keeps it from the screen,
    unless the block raises."""
    saved = os.dup(2)
    with tempfile.TemporaryFile("w+") as kept:
        os.dup2(kept.fileno(), 2)

        def so_far() -> str:
            kept.seek(0)
            return kept.read()

        try:
            yield so_far
        except BaseException:
            os.write(saved, so_far().encode())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def compiled(lower: Callable[[], Any], num_devices: int) -> Program:
    """Lower and compile, and read the result; raises what the compiler raises, unless it is that
    the memory does not suffice."""
    start = time.perf_counter()
    with captured_stderr() as so_far:
        try:
            found = lower().compile()
        except jax.errors.JaxRuntimeError as problem:
            said = str(problem)
            used = re.search(r"Used ([\d.]+)([KMGT]) of ([\d.]+)[KMGT] hbm", said)
            if not used:
                raise
            needed = float(used[1]) * 1024 ** ("KMGT".index(used[2]) + 1)
            took = time.perf_counter() - start
            return Program(took, needed_bytes=int(needed), problem=said.split("\n")[0])
        warned = tuple(line for line in so_far().splitlines() if REMATERIALISED in line)
    memory: Any = found.memory_analysis()
    held = memory.argument_size_in_bytes
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    temporary = memory.temp_size_in_bytes + max(fresh, 0)
    code = memory.generated_code_size_in_bytes
    did = work(found.as_text(), num_devices)
    took = time.perf_counter() - start
    return Program(took, held, temporary, held + temporary + code, did, warned)


def lay_out(config: LoopConfig, where: Target) -> Mesh:
    """The config's mesh over the target."""
    return config.build_mesh(where.devices(), kind=where.kind)


def _placed(shapes: Any, axes: Any, mesh: Mesh, rules: Rules) -> Any:
    """Shapes with shardings; one string of letters does for a whole tree of arrays."""

    def place(letters: Any, tree: Any) -> Any:
        if not isinstance(letters, str):
            return {name: place(letters[name], tree[name]) for name in tree}

        def one(x: Any) -> Any:
            spec = partition_spec(letters, x.shape, rules, dict(mesh.shape))
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

        return jax.tree.map(one, tree)

    return place(axes, shapes)


def train_step(
    task: Task, config: LoopConfig, batch: Mapping[str, Any], mesh: Mesh
) -> tuple[Plan, Program]:
    """The step as `train.plan` has it, compiled for the mesh's devices."""
    with jax.set_mesh(mesh), use_rules(config.rules), use_kernel(config.attention):
        planned = plan(task, config, mesh)
        placed = batch_of(batch, mesh, config)
        lower = lambda: planned.step.lower(planned.abstract, placed)  # type: ignore[attr-defined]  # noqa: E731  # it is a jitted function
        return planned, compiled(lower, mesh.size)


def generation_step(
    task: Task, config: LoopConfig, planned: Plan, asked: Generation, mesh: Mesh
) -> Program:
    """What a trained model is asked, with its weights where training has them."""

    def on(weights: Any, extra: Any, *arrays: Any) -> Any:
        model = nnx.merge(planned.graphdef, weights, extra)
        probes = {name: functools.partial(f, model) for name, f in task.probes().items()}
        return asked.function(probes, *arrays)

    with jax.set_mesh(mesh), use_rules(config.rules), use_kernel(config.attention):
        placed = [
            _placed(shapes, axes, mesh, config.rules)
            for shapes, axes in zip(asked.arrays, asked.axes, strict=True)
        ]
        donated = (2 + asked.updated,) if asked.updated >= 0 else ()
        state = planned.abstract
        jitted = jax.jit(on, donate_argnums=donated)
        return compiled(lambda: jitted.lower(state.weights, state.extra, *placed), mesh.size)


def batch_of(batch: Mapping[str, Any], mesh: Mesh, config: LoopConfig) -> dict[str, Any]:
    """A batch's shapes with the shardings that `train.feeding.place_batch` gives it."""
    axes = {name: "B" + "_" * (array.ndim - 1) for name, array in batch.items()}
    return _placed(dict(batch), axes, mesh, config.rules)


def chip_bytes(tree: Any) -> int:
    """What placed shapes take on one chip, by their shardings alone."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape
        total += math.prod(shape) * jax.numpy.dtype(leaf.dtype).itemsize
    return total
