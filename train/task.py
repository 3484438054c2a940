"""What the loop asks of a model: four methods, none of which knows a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from flax import nnx
from jaxtyping import Array, Float

Scalars = dict[str, Float[Array, ""]]
Batch = Mapping[str, Array]


@runtime_checkable
class Task(Protocol):
    """A model and what it is for. A frozen dataclass, so that its fields are its identity."""

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """A fresh model."""
        ...

    def loss(self, model: Any, batch: Batch, key: Array) -> tuple[Float[Array, ""], Scalars]:
        """The scalar to descend and what to log beside it.

        Where the loss is a mean over a number of things that differs from batch to batch (tokens,
        hidden codes), the scalar `weight` says how many; without it they are rows. A step that is
        folded over microbatches needs it (see `train.step.gradients_of`).
        """
        ...

    def group(self, path: tuple[str, ...]) -> str:
        """Which optimizer owns the parameter at this path; `frozen` is one."""
        ...

    def probes(self) -> Mapping[str, Callable[..., Any]]:
        """Named pure functions `(model, *arrays) -> arrays` that evaluators may call."""
        ...
