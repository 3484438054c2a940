"""One optimizer a group of parameters, with clipping and schedule inside the group."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from train.state import by_names, names


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """`clip` bounds the group's global gradient norm (0 = off); `final_fraction` ends linear,
    cosine and wsd schedules, the last of which decays over the last `decay_share` of the steps.

    `weight_decay` times the rate is taken off what letters make a matrix (kernels, tables), never
    off a scale, bias or other vector. With `adafactor` (Shazeer & Stern 2018, algorithm 4, with
    rates as given instead of relative to the parameter's size, and decay as AdamW's) matrices with
    two sides of `factor_from` or more keep the second moments of rows and columns only; b1 is the
    momentum, which needs an array of its own (0 = none, as in the paper), and b2 is not used.

    `consistent_rms` scales Muon's matrices by `consistent_rms * sqrt(max(fan_in, fan_out))`
    (Liu et al. 2025, arXiv 2502.16982, section 2.2, where it is 0.2), so that their updates are as
    large as Adam's and one rate transfers across widths. None scales by `sqrt(max(1, fan_out /
    fan_in))` (Jordan 2024), under which good rates are some ten times Adam's. The parameters of a
    Muon group that are no matrices get Adam with Nesterov's momentum, without decay, by the group's
    rate, b1 and b2.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    final_fraction: float = 0.0
    weight_decay: float = 0.0
    clip: float = 0.0
    b1: float = 0.9
    b2: float = 0.95
    consistent_rms: float | None = None
    decay_share: float = 0.2
    factor_from: int = 128


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
        case "wsd":
            body = _stable_then_down(config, num_steps)
        case _:
            raise ValueError(
                f"schedule {config.schedule!r} is not known; there are: constant, linear, cosine, "
                "wsd"
            )
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warm), body], [warm])


def _stable_then_down(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """What follows the warm-up of wsd (Hu et al. 2024, MiniCPM, arXiv 2404.06395, section 4.2, with
    a linear decay)."""
    down = round(config.decay_share * num_steps)
    stable = num_steps - config.warmup_steps - down
    if not 0 < config.decay_share <= 1 or stable < 0:
        raise ValueError(
            f"decay_share {config.decay_share} after {config.warmup_steps} steps of warm-up does "
            f"not fit into {num_steps} steps; give a share above 0 that leaves them room"
        )
    peak = config.learning_rate
    end = optax.linear_schedule(peak, peak * config.final_fraction, max(down, 1))
    return optax.join_schedules([optax.constant_schedule(peak), end], [stable])


def _matrix_dimensions(axes: str, summed: str) -> MuonDimensionNumbers | None:
    """How a kernel of several letters is one matrix (its stacked L ones a batch of them); None for
    a vector."""
    reduction = tuple(i for i, letter in enumerate(axes) if letter in summed)
    output = tuple(i for i, letter in enumerate(axes) if letter not in summed and letter != "L")
    if not reduction or not output:
        return None
    return MuonDimensionNumbers(reduction_axis=reduction, output_axis=output)


def _one(
    config: OptimizerConfig, num_steps: int, dimensions: Callable[[Any], Any]
) -> optax.GradientTransformation:
    rate = learning_rate(config, num_steps)

    def decays(tree: Any) -> Any:
        is_leaf = lambda x: x is None or isinstance(x, MuonDimensionNumbers)  # noqa: E731
        return jax.tree.map(lambda matrix: matrix is not None, dimensions(tree), is_leaf=is_leaf)

    match config.name:
        case "adamw":
            core = optax.adamw(
                rate, config.b1, config.b2, weight_decay=config.weight_decay, mask=decays
            )
        case "muon":
            core = muon(
                rate,
                weight_decay=config.weight_decay,
                adam_b1=config.b1,
                adam_b2=config.b2,
                consistent_rms=config.consistent_rms,
                muon_weight_dimension_numbers=dimensions,
            )
        case "adafactor":
            core = optax.chain(
                optax.scale_by_factored_rms(min_dim_size_to_factor=config.factor_from),
                optax.clip_by_block_rms(1.0),
                optax.ema(config.b1, debias=False) if config.b1 else optax.identity(),
                optax.add_decayed_weights(config.weight_decay, mask=decays),
                optax.scale_by_learning_rate(rate),
            )
        case _:
            raise ValueError(
                f"optimizer {config.name!r} is not known; there are: adamw, muon, adafactor"
            )
    return optax.chain(optax.clip_by_global_norm(config.clip), core) if config.clip else core


def _refuse_factored_layers(
    config: OptimizerConfig, path: tuple[str, ...], letters: str, shape: tuple[int, ...]
) -> None:
    """Optax factors over the two longest sides; one of them must not be the stacked layers."""
    longest = sorted(range(len(shape)), key=lambda i: shape[i])[-2:]
    factored = len(longest) > 1 and shape[longest[0]] >= config.factor_from
    if factored and "L" in [letters[i] for i in longest]:
        raise ValueError(
            f"adafactor would average {'/'.join(path)} {shape} over its layers; raise "
            f"factor_from above {shape[longest[0]]}"
        )


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

    `axes` and `summed` are its letters and those that its products sum away (see `axes_tree`).
    Raises `ValueError` when a group has no optimizer.
    """
    labels = jax.tree_util.tree_map_with_path(lambda path, _: group(names(path)), params)
    unknown = sorted(set(jax.tree.leaves(labels)) - set(configs) - {"frozen"})
    if unknown:
        raise ValueError(
            f"no optimizer for group {', '.join(unknown)}; "
            f"config.loop.optimizers has {sorted(configs)}"
        )

    letters, sums = by_names(axes), by_names(summed)
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        config = configs.get(group(names(path)))
        if config is not None and config.name == "adafactor":
            _refuse_factored_layers(config, names(path), letters[names(path)], leaf.shape)

    def dimensions(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: _matrix_dimensions(letters[names(path)], sums[names(path)]), tree
        )

    parts = {name: _one(config, num_steps, dimensions) for name, config in configs.items()}
    return optax.multi_transform({**parts, "frozen": optax.set_to_zero()}, labels)
