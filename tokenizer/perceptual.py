"""LPIPS: how unlike two pictures look to a VGG16 (Zhang et al. 2018, arXiv 1801.03924), by weights
that the user supplies.

We ship none: export torchvision's VGG16 and, for the learnt channel weights, LPIPS's linear layers
into one safetensors file under the names they have there.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float
from safetensors import SafetensorError
from safetensors.numpy import load

_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # torchvision's numbers
_CHANNELS = (64, 128, 256, 512, 512)
_SHIFT = (-0.030, -0.088, -0.188)  # of pictures in [-1, 1], as the weights were learnt
_SCALE = (0.458, 0.448, 0.450)
_POOL = (1, 2, 2, 1)


@dataclasses.dataclass(frozen=True)
class PerceptualConfig:
    """`weights` is the safetensors file that `losses.perceptual` needs; without one ("") that loss
    is off, whatever its weight."""

    weights: str = ""


@dataclasses.dataclass(frozen=True)
class Perceptual:
    """A frozen VGG16 as an instrument of a loss: the hash of its file is its identity.

    The arrays (of numpy) are no field: no state, optimizer or checkpoint holds them. `learnt` says
    whether the file had LPIPS's channel weights; without them all channels weigh alike.
    """

    weights: str
    learnt: bool
    arrays: dataclasses.InitVar[Any]

    def __post_init__(self, arrays: Any) -> None:
        object.__setattr__(self, "_arrays", arrays)

    def __call__(
        self, page: Float[Array, "B Y X C"], painted: Float[Array, "B Y X C"]
    ) -> Float[Array, ""]:
        """The distance of pictures in [-1, 1], averaged over the batch: squared differences of
        features at unit length, weighed by channel, averaged over places, summed over stages.

        Where LPIPS divides by |f| + 1e-10, this does by sqrt(|f|^2 + 1e-10), so that features that
        are all zero have a finite gradient.
        """
        convolutions, linear = self._arrays  # type: ignore[attr-defined]  # set above
        both = (jnp.concatenate([page, painted]) - jnp.array(_SHIFT)) / jnp.array(_SCALE)
        total = jnp.zeros(())
        for stage, (layers, weight) in enumerate(zip(convolutions, linear, strict=True)):
            if stage:
                both = jax.lax.reduce_window(both, -jnp.inf, jax.lax.max, _POOL, _POOL, "VALID")
            for kernel, bias in layers:
                both = _convolved(both, jnp.asarray(kernel)) + jnp.asarray(bias)
                both = jax.nn.relu(both)
            square = jnp.square(both).sum(axis=-1, keepdims=True)
            here, there = jnp.split(both * jax.lax.rsqrt(square + 1e-10), 2)
            total = total + (jnp.square(here - there) @ jnp.asarray(weight)).mean()
        return total


def _convolved(x: Float[Array, "B Y X I"], kernel: Float[Array, "h w I O"]) -> Float[Array, ...]:
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=axes)


def perceptual_of(config: PerceptualConfig) -> Perceptual | None:
    """The VGG16 of a config; without a file none, which the log says."""
    if config.weights:
        return read_perceptual(config.weights)
    logging.warning(
        "losses.perceptual is off: config.perceptual.weights names no VGG16 "
        "(tokenizer/perceptual.py says which arrays it needs)"
    )
    return None


def read_perceptual(path: str | Path) -> Perceptual:
    """The VGG16 of a safetensors file, with torchvision's names (`features.0.weight` ...) and, if
    they are there, LPIPS's (`lin0.model.1.weight` ...).

    Raises `FileNotFoundError` for no file, `ValueError` naming what is missing or has another shape
    and for a file that is no safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"losses.perceptual needs the weights of a VGG16, and there is no file {str(path)!r}: "
            "give config.perceptual.weights a safetensors file, or set losses.perceptual to 0"
        )
    data = path.read_bytes()
    try:
        found = load(data)
    except SafetensorError as problem:
        raise ValueError(f"{path} is no safetensors file ({problem}): export it anew") from None
    learnt = "lin0.model.1.weight" in found
    wanted = _shapes(learnt)
    wrong = [
        f"{name} of shape {shape} ({found[name].shape if name in found else 'missing'})"
        for name, shape in wanted.items()
        if name not in found or found[name].shape != shape
    ]
    if wrong:
        raise ValueError(f"{path} lacks {len(wrong)} arrays of a VGG16: {', '.join(wrong[:4])}")
    arrays = {name: np.asarray(found[name], np.float32) for name in wanted}
    convolutions = tuple(
        tuple(
            (arrays[f"features.{i}.weight"].transpose(2, 3, 1, 0), arrays[f"features.{i}.bias"])
            for i in stage
        )
        for stage in _STAGES
    )
    linear = tuple(
        arrays[f"lin{i}.model.1.weight"].reshape(-1) if learnt else np.ones(size, np.float32)
        for i, size in enumerate(_CHANNELS)
    )
    return Perceptual(hashlib.sha256(data).hexdigest()[:16], learnt, (convolutions, linear))


def _shapes(learnt: bool) -> dict[str, tuple[int, ...]]:
    """The arrays of the file by name, in torch's order of axes."""
    shapes: dict[str, tuple[int, ...]] = {}
    before = 3
    for stage, channels in zip(_STAGES, _CHANNELS, strict=True):
        for i in stage:
            shapes[f"features.{i}.weight"] = (channels, before, 3, 3)
            shapes[f"features.{i}.bias"] = (channels,)
            before = channels
    if learnt:
        shapes |= {f"lin{i}.model.1.weight": (1, n, 1, 1) for i, n in enumerate(_CHANNELS)}
    return shapes
