"""One optimizer a group of parameters, with clipping and schedule inside the group."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """`clip` bounds the group's global gradient norm (0 = off); `final_fraction` ends linear and
    cosine schedules."""

    name: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    final_fraction: float = 0.0
    weight_decay: float = 0.0
    clip: float = 0.0
    b1: float = 0.9
    b2: float = 0.95


def learning_rate(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then the named schedule down to `final_fraction` of the peak at
    `num_steps`."""
    peak, warm = config.learning_rate, config.warmup_steps
    rest = max(num_steps - warm, 1)
    match config.schedule:
        case "constant":
            body = optax.constant_schedule(peak)
        case "linear":
            body = optax.linear_schedule(peak, peak * config.final_fraction, rest)
        case "cosine":
            body = optax.cosine_decay_schedule(peak, rest, config.final_fraction)
        case _:
            raise ValueError(
                f"schedule {config.schedule!r} is not known; there are: constant, linear, cosine"
            )
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warm), body], [warm])


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(k.key) for k in path)


def _matrix_dimensions(axes: str, summed: str, where: str) -> MuonDimensionNumbers:
    """How a kernel of several letters is one matrix (its stacked L ones a batch of them)."""
    reduction = tuple(i for i, letter in enumerate(axes) if letter in summed)
    output = tuple(i for i, letter in enumerate(axes) if letter not in summed and letter != "L")
    if not reduction or not output:
        raise ValueError(f"{where} with axes {axes!r} is no matrix: Muon cannot own it; use adamw")
    return MuonDimensionNumbers(reduction_axis=reduction, output_axis=output)


def _one(
    config: OptimizerConfig, num_steps: int, dimensions: Callable[[Any], Any]
) -> optax.GradientTransformation:
    rate = learning_rate(config, num_steps)
    match config.name:
        case "adamw":
            core = optax.adamw(rate, config.b1, config.b2, weight_decay=config.weight_decay)
        case "muon":
            core = muon(
                rate,
                weight_decay=config.weight_decay,
                muon_weight_dimension_numbers=dimensions,
            )
        case _:
            raise ValueError(f"optimizer {config.name!r} is not known; there are: adamw, muon")
    return optax.chain(optax.clip_by_global_norm(config.clip), core) if config.clip else core


def build(
    configs: Mapping[str, OptimizerConfig],
    group: Callable[[tuple[str, ...]], str],
    params: Any,
    *,
    axes: Any,
    summed: Any,
    num_steps: int,
) -> optax.GradientTransformation:
    """The transformation for `params` (abstract ones will do).

    Raises `ValueError` when a group has no optimizer, or a Muon group holds what is no matrix.
    """
    labels = jax.tree_util.tree_map_with_path(lambda path, _: group(_names(path)), params)
    unknown = sorted(set(jax.tree.leaves(labels)) - set(configs) - {"frozen"})
    if unknown:
        raise ValueError(
            f"no optimizer for group {', '.join(unknown)}; "
            f"config.loop.optimizers has {sorted(configs)}"
        )

    def dimensions(tree: Any) -> Any:
        def one(path: tuple[Any, ...], _: Any) -> MuonDimensionNumbers:
            letters, sums = axes, summed
            for name in _names(path):
                letters, sums = letters[name], sums[name]
            return _matrix_dimensions(letters, sums, "/".join(_names(path)))

        return jax.tree_util.tree_map_with_path(one, tree)

    parts = {name: _one(config, num_steps, dimensions) for name, config in configs.items()}
    return optax.multi_transform({**parts, "frozen": optax.set_to_zero()}, labels)
