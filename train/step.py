"""One step: state and batch to the next state and what to log.

A step is one update by the optimizer, whatever number of microbatches its gradient is summed over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from layers.axes import constrain, spec
from train.guard import GuardConfig, judge, keep
from train.state import State
from train.task import Batch, Scalars, Task

Step = Callable[[State, Batch], tuple[State, Scalars]]
Gradients = Callable[[Any, Any, Batch, jax.Array], tuple[jax.Array, Scalars, Any, Any]]


def one_step(
    gradients: Gradients,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema_decay: float,
    guard: GuardConfig,
) -> Step:
    """State and batch to the next state and the scalars; its randomness is `fold_in(seed, step)`.

    A step that the guard finds bad changes nothing but the counts: of the step, and the guard's.
    """

    def step(state: State, batch: Batch) -> tuple[State, Scalars]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        loss, scalars, extra, grads = gradients(state.params, state.extra, batch, key)
        norm = optax.tree.norm(grads)
        good, guarded, found = judge(guard, state.guard, loss, norm)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        average = lambda old, new: ema_decay * old + (1 - ema_decay) * new  # noqa: E731
        ema = jax.tree.map(average, state.ema, params) if ema_decay else {}
        old = state.params, state.extra, state.opt, state.ema
        new = keep(good, (params, extra, opt, ema), old)
        scalars = {"loss": loss, "gradient_norm": norm, **scalars, **found}
        return State(state.step + 1, *new, guarded), scalars

    return step


def gradients_of(task: Task, graphdef: Any, axes: Any, *, microbatches: int = 1) -> Gradients:
    """Parameters, other variables, batch and key to (loss, scalars, variables after, gradients).

    With several microbatches a scan folds over them, and loss, scalars and gradients are their
    means, weighed by each one's `weight` (see `Task.loss`) and summed in float32: what the whole
    batch would give, if the loss is a mean over that weight. It is not, and the step differs from
    that of the whole batch, where a loss looks at the batch as a whole (the critic's adaptive
    weight, entropies of code use). Microbatch i draws its noise by `fold_in(key, i)`, so noise
    differs from the whole batch's too.

    Variables that are no parameters pass from one microbatch to the next: a running average moves
    (and forgets) once a microbatch. Those made with `once=True` move once a step instead: each
    microbatch finds them as the step did, and the last one's stay.
    """
    if microbatches < 1:
        raise ValueError(f"microbatches {microbatches} must be 1 (the batch whole) or more")

    def whole(params: Any, extra: Any, batch: Batch, key: jax.Array) -> Any:
        def objective(params: Any) -> tuple[jax.Array, tuple[Any, Any]]:
            model = nnx.merge(graphdef, params, extra)
            loss, scalars = task.loss(model, batch, key)
            after = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
            return loss, (scalars, after)

        (loss, (scalars, after)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        return loss, scalars, after, grads

    def weighed(given: Any, extra: Any, batch: Batch, key: jax.Array) -> tuple[Any, Any]:
        """One microbatch's weight, and the rest times it."""
        loss, scalars, after, grads = whole(given, extra, batch, key)
        num_rows = next(iter(batch.values())).shape[0]
        weight = jnp.asarray(scalars.get("weight", num_rows), jnp.float32)
        times = jax.tree.map(lambda x: weight * x.astype(jnp.float32), (loss, scalars, grads))
        return _placed((weight, *times), axes), after

    def folded(params: Any, extra: Any, batch: Batch, key: jax.Array) -> Any:
        parts = {name: split(array, microbatches) for name, array in batch.items()}
        once = _once(nnx.merge(graphdef, params, extra), extra)

        def body(carry: tuple[Any, Any], item: tuple[jax.Array, Batch]) -> tuple[Any, None]:
            (sums, now), (index, rows) = carry, item
            given = jax.tree.map(lambda o, before, now: before if o else now, once, extra, now)
            found, after = weighed(params, given, rows, jax.random.fold_in(key, index))
            return (_placed(jax.tree.map(jnp.add, sums, found), axes), after), None

        first = {name: array[0] for name, array in parts.items()}
        shapes, _ = jax.eval_shape(weighed, params, extra, first, key)
        sums = _placed(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), axes)
        items = jnp.arange(microbatches), parts
        ((weight, *sums), after), _ = jax.lax.scan(body, (sums, extra), items)
        loss, scalars, grads = jax.tree.map(lambda x: x / jnp.where(weight > 0, weight, 1), sums)
        if "weight" in scalars:
            scalars = {**scalars, "weight": weight}
        return loss, scalars, after, grads

    return whole if microbatches == 1 else folded


def split(array: jax.Array, count: int) -> jax.Array:
    """[B ...] to [count B/count ...]: row r to microbatch r mod count, so that each takes rows from
    every device and no row moves.

    Raises `ValueError` when the rows, or a device's rows, are not a multiple of `count`.
    """
    num_rows, *rest = array.shape
    few = num_rows // count
    remedy = "change config.loop.microbatches or config.data.batch_size"
    if num_rows % count:
        raise ValueError(f"a batch of {num_rows} has no {count} equal microbatches; {remedy}")
    if spec("B", (num_rows,)) != spec("B", (few,)):
        raise ValueError(
            f"a batch of {num_rows} in {count} microbatches leaves {few} rows, which the devices "
            f"along B cannot share; {remedy}"
        )
    return constrain(jnp.moveaxis(array.reshape(few, count, *rest), 1, 0), "_B" + "_" * len(rest))


def _placed(found: Any, axes: Any) -> Any:
    """(..., gradients), these where their parameters lie: without it a carry may be whole on every
    device."""
    *others, grads = found
    return (*others, jax.tree.map(constrain, grads, axes))


def _once(model: Any, extra: Any) -> Any:
    """Which variables that are no parameters were made with `once=True`."""
    variables = nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.Param)))
    marks = {path: bool(v.get_metadata().get("once", False)) for path, v in variables}
    mark = lambda path, _: marks[tuple(k.key for k in path)]  # noqa: E731
    return jax.tree_util.tree_map_with_path(mark, extra)
