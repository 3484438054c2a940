"""A trained model, ready to be asked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from flax import nnx
from ml_collections import ConfigDict

from train.probes import Probes, Programs
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

    @functools.cached_property
    def probes(self) -> Probes:
        """The task's probes over arrays alone."""
        graphdef, _ = nnx.split(nnx.eval_shape(lambda: self.task.init(nnx.Rngs(0))))
        return Probes(Programs(self.task, graphdef), self.weights, self.extra)
