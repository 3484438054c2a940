"""What keeps one bad batch from spoiling a run: its update is left out, and a row of them stops it.

Inside the step, on the device (`judge`, `keep`): a loss or gradient norm that is not finite, or a
norm that spikes, leaves parameters, moments, averages and statistics as they were; the step is
counted and its batch is spent. On the host (`Streak`), a step later: too many in a row are an
error that names the steps, and so the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """`max_in_a_row` bad updates stop the run; 0 turns the guard off, and every update is applied,
    but a run without bad ones has the same bits either way.

    A spike is a gradient norm of more than `spike_factor` times its running (geometric) mean, which
    forgets by `decay` a step and is trusted after `warmup_steps` good ones; with a factor of 0 only
    what is not finite is bad. Bad steps do not move the mean: a norm that rose for good stops the
    run.
    """

    max_in_a_row: int = 8
    spike_factor: float = 0.0
    decay: float = 0.99
    warmup_steps: int = 100

    def __post_init__(self) -> None:
        if self.max_in_a_row < 0 or self.warmup_steps < 0:
            raise ValueError(
                f"guard.max_in_a_row {self.max_in_a_row} and guard.warmup_steps "
                f"{self.warmup_steps} must be 0 or more"
            )
        if self.spike_factor and self.spike_factor <= 1:
            raise ValueError(
                f"guard.spike_factor {self.spike_factor} would leave out ordinary steps; give more "
                "than 1, or 0 for none"
            )
        if not 0 <= self.decay < 1:
            raise ValueError(f"guard.decay {self.decay} must be at least 0 and less than 1")


def fresh() -> Tree:
    """The guard's part of a state: `skipped` steps in all and `in_a_row`, how many good ones were
    `seen`, and the mean of the logarithms of their gradient norms, `norm`."""
    counts = {name: jnp.zeros((), jnp.int32) for name in ("skipped", "in_a_row", "seen")}
    return {**counts, "norm": jnp.zeros((), jnp.float32)}


def judge(
    config: GuardConfig, guard: Tree, loss: jax.Array, norm: jax.Array
) -> tuple[jax.Array, Tree, dict[str, jax.Array]]:
    """Whether a step is good, the guard after it, and its scalars: `skipped` (0 or 1),
    `skipped_in_a_row` and `skipped_total`."""
    if not config.max_in_a_row:
        # true, which XLA does not know: without the choice it would fuse, and so round, another way
        return guard["seen"] >= 0, guard, {}
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    level = jnp.log(jnp.maximum(norm, jnp.finfo(jnp.float32).tiny))
    if config.spike_factor:
        trusted = guard["seen"] >= config.warmup_steps
        good &= ~trusted | (level <= guard["norm"] + jnp.log(config.spike_factor))
    # a plain mean until there are enough for the decay, so that the start does not weigh on it
    share = jnp.maximum(1 - config.decay, 1 / (guard["seen"] + 1))
    after = {
        "skipped": guard["skipped"] + ~good,
        "in_a_row": jnp.where(good, 0, guard["in_a_row"] + 1),
        "seen": guard["seen"] + good,
        "norm": jnp.where(good, guard["norm"] + share * (level - guard["norm"]), guard["norm"]),
    }
    scalars = {
        "skipped": (~good).astype(jnp.int32), "skipped_in_a_row": after["in_a_row"],
        "skipped_total": after["skipped"],
    }  # fmt: skip
    return good, after, scalars


def keep(good: jax.Array, new: T, old: T) -> T:
    """`new` where the step was good, else the bits of `old`."""
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)


class Diverged(FloatingPointError):
    """Too many bad updates in a row; `steps` lists them, first to last. Every one was left out of
    the state."""

    def __init__(self, steps: tuple[int, ...], message: str) -> None:
        super().__init__(message)
        self.steps = steps


class Streak:
    """Watches the scalars that `judge` gave, as the host reads them; restarts do not deceive it,
    for the state counts."""

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._recent: dict[int, str] = {}

    def see(self, step: int, values: Mapping[str, float]) -> None:
        """One step's scalars; raises `Diverged` at the last that is allowed in a row."""
        if not values.get("skipped"):
            self._recent.clear()
            return
        loss, norm = values["loss"], values["gradient_norm"]
        self._recent[step] = f"step {step}: loss {loss:.4g}, gradient norm {norm:.4g}"
        count = int(values["skipped_in_a_row"])
        if count < self._config.max_in_a_row:
            return
        steps = tuple(range(step - count + 1, step + 1))
        raise Diverged(
            steps,
            f"{count} updates in a row were not finite or spiked, at steps {steps[0]} to {step} "
            f"(items {steps[0] - 1} to {step - 1} of the data set of batches): look at these "
            f"batches, or go on from an earlier save with a lower learning rate "
            f"({'; '.join(self._recent.values())})",
        )
