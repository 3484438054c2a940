"""One step: state and batch to the next state and what to log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from flax import nnx

from train.state import State
from train.task import Task

Step = Callable[[State, Mapping[str, jax.Array]], tuple[State, dict[str, jax.Array]]]


def one_step(
    task: Task,
    graphdef: Any,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema_decay: float,
) -> Step:
    """State and batch to the next state and the scalars; its randomness is `fold_in(seed,
    step)`."""

    def step(state: State, batch: Mapping[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def objective(params: Any) -> tuple[jax.Array, tuple[Any, Any]]:
            model = nnx.merge(graphdef, params, state.extra)
            loss, scalars = task.loss(model, batch, key)
            extra = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
            return loss, (scalars, extra)

        (loss, (scalars, extra)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        average = lambda old, new: ema_decay * old + (1 - ema_decay) * new  # noqa: E731
        ema = jax.tree.map(average, state.ema, params) if ema_decay else {}
        scalars = {"loss": loss, "gradient_norm": optax.tree.norm(grads), **scalars}
        return State(state.step + 1, params, extra, opt, ema), scalars

    return step
