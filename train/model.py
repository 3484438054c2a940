"""A trained model, ready to be asked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import logging
from flax import nnx
from ml_collections import ConfigDict

from layers.quantized import narrowed
from train.plan import Probes
from train.task import Task


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model: its config, its task, its arrays and its manifest."""

    config: ConfigDict
    task: Task
    weights: Any
    extra: Any
    manifest: Mapping[str, Any]
    weight_hash: str

    def with_weights(self, kind: str) -> Model:
        """The same with the kernels of its products in another of `layers.quantized.WEIGHTS`, to be
        asked and not trained; the log says what the kernels lose.

        Its hash says so too: what was measured with exact weights does not hold for others.
        """
        module = nnx.eval_shape(lambda: self.task.init(nnx.Rngs(0)))
        weights, lost = narrowed(module, self.weights, kind)
        if not lost:
            return self
        worst = max(lost, key=lost.__getitem__)
        logging.info(
            "%s: %d kernels in %s, relative RMS error %.2g, at most %.2g (%s)", self.config.task,
            len(lost), kind, sum(lost.values()) / len(lost), lost[worst], worst,
        )  # fmt: skip
        return dataclasses.replace(self, weights=weights, weight_hash=f"{self.weight_hash}+{kind}")

    def jit(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """`function(probes, *arrays)` compiled with the weights as its arguments."""
        graphdef, _ = nnx.split(nnx.eval_shape(lambda: self.task.init(nnx.Rngs(0))))

        def on(weights: Any, extra: Any, *arrays: Any, **named: Any) -> Any:
            model = nnx.merge(graphdef, weights, extra)
            probes = {
                name: functools.partial(probe, model) for name, probe in self.task.probes().items()
            }
            return function(probes, *arrays, **named)

        jitted = jax.jit(on, **options)
        return lambda *arrays, **named: jitted(self.weights, self.extra, *arrays, **named)

    @functools.cached_property
    def probes(self) -> Probes:
        """The task's probes over arrays alone."""
        ask = lambda name: self.jit(lambda probes, *arrays: probes[name](*arrays))  # noqa: E731
        return {name: ask(name) for name in self.task.probes()}
