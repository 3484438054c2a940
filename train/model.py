"""A trained model, ready to be asked, on one device or on a mesh."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from layers.axes import Rules, axes_tree, partition_spec, use_rules
from layers.quantized import narrowed
from train.mesh import RULES
from train.probes import Probes, Programs
from train.task import Task


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model: its config, its task, its arrays and its manifest; without a mesh it is on
    one device."""

    config: ConfigDict
    task: Task
    weights: Any
    extra: Any
    manifest: Mapping[str, Any]
    weight_hash: str
    mesh: Mesh | None = None
    rules: Rules = dataclasses.field(default_factory=lambda: RULES)

    def with_weights(self, kind: str) -> Model:
        """The same with the kernels of its products in another of `layers.quantized.WEIGHTS`, to be
        asked and not trained; the log says what the kernels lose.

        Its hash says so too: what was measured with exact weights does not hold for others.
        """
        weights, lost = narrowed(self._abstract, self.weights, kind)
        if not lost:
            return self
        worst = max(lost, key=lost.__getitem__)
        logging.info(
            "%s: %d kernels in %s, relative RMS error %.2g, at most %.2g (%s)", self.config.task,
            len(lost), kind, sum(lost.values()) / len(lost), lost[worst], worst,
        )  # fmt: skip
        return dataclasses.replace(self, weights=weights, weight_hash=f"{self.weight_hash}+{kind}")

    def on(self, mesh: Mesh, rules: Rules = RULES) -> Model:
        """The same on a mesh: weights lie by the letters of their axes, and what is asked is
        computed with rows and heads where the rules have theirs.

        Raises `ValueError` naming an axis of the mesh that cuts neither rows nor any weight.
        """
        sizes = dict(mesh.shape)
        axes = axes_tree(self._abstract)
        specs = jax.tree.map(
            lambda x, a: partition_spec(a, x.shape, rules, sizes), self.weights, axes
        )
        parts = [part for spec in jax.tree.leaves(specs) for part in spec]
        cutting = {name for part in (*parts, rules.get("B")) for name in _names(part)}
        for axis, size in sizes.items():
            if size > 1 and axis not in cutting:
                raise ValueError(
                    f"mesh axis {axis} of {size} divides no weight of this {self.config.task}: "
                    "give one that divides its heads, width or hidden units, or leave it out"
                )
        place = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))  # noqa: E731
        extra = jax.tree.map(lambda x: place(x, jax.P()), self.extra)
        weights = jax.tree.map(place, self.weights, specs)
        return dataclasses.replace(self, weights=weights, extra=extra, mesh=mesh, rules=rules)

    def on_one_device(self) -> Model:
        """The same with its arrays on the default device."""
        weights, extra = jax.device_put((self.weights, self.extra))
        return dataclasses.replace(self, weights=weights, extra=extra, mesh=None)

    @functools.cached_property
    def _abstract(self) -> nnx.Module:
        return nnx.eval_shape(lambda: self.task.init(nnx.Rngs(0)))

    @contextlib.contextmanager
    def _there(self) -> Iterator[None]:
        if self.mesh is None:
            yield
            return
        with jax.set_mesh(self.mesh), use_rules(self.rules):
            yield

    @functools.cached_property
    def probes(self) -> Probes:
        """The task's probes over arrays alone, and programs over them."""
        programs = Programs(self.task, nnx.graphdef(self._abstract))
        return Probes(programs, self.weights, self.extra, around=self._there)

    def bucket(self, num_rows: int) -> int:
        """How many rows a batch of so many is padded to, so that few programs are compiled: a power
        of two for each part that the mesh cuts rows into."""
        sizes = {} if self.mesh is None else dict(self.mesh.shape)
        ways = math.prod(sizes.get(axis, 1) for axis in _names(self.rules.get("B")))
        return ways << max(-(-num_rows // ways) - 1, 0).bit_length()

    def padded(self, arrays: Any) -> Any:
        """A tree of arrays with a row a page, filled up with copies of the first to the `bucket` of
        the shortest, and put where a mesh has its rows."""
        size = self.bucket(min(len(x) for x in jax.tree.leaves(arrays)))

        def pad(x: Any) -> Any:
            if len(x) < size:
                x = np.concatenate([x, np.repeat(np.asarray(x[:1]), size - len(x), axis=0)])
            if self.mesh is None:
                return x
            spec = partition_spec("B", (size,), self.rules, dict(self.mesh.shape))
            return jax.device_put(x, NamedSharding(self.mesh, spec))

        return jax.tree.map(pad, arrays)

    def by_rows(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A compiled call over arrays with a row a page, for any number of pages: it is made for
        `padded` ones, and none of the rows that were filled in comes back, as numpy arrays."""

        def asked(*arrays: Any, **named: Any) -> Any:
            num_rows = min(len(x) for x in jax.tree.leaves(arrays))
            made = call(*self.padded(arrays), **named)
            return jax.tree.map(lambda x: np.asarray(x)[:num_rows], made)

        return asked

    def ask(self, name: str, *arrays: Any) -> Any:
        """What a probe says of any number of pages, `by_rows`."""
        return self.by_rows(self.probes[name])(*arrays)


def _names(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes that a rule or a part of a spec names."""
    return (axes,) if isinstance(axes, str) else tuple(axes or ())
