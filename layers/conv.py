"""Convolution and what goes with it: group normalisation, enlarging, shrinking.

Pictures and feature maps are [B Y X C]; kernels are [rows, columns, in, out], so a checkpoint in
the out-in-rows-columns order of PyTorch is transposed by (2, 3, 1, 0).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from layers.axes import constrain


@dataclasses.dataclass(frozen=True)
class Window:
    """A square kernel of `side` px that moves by `stride` px, over a picture with `padding` = (top
    and left, bottom and right) zeros around it; None pads so that stride 1 keeps the size."""

    side: int = 3
    stride: int = 1
    padding: tuple[int, int] | None = None

    @property
    def pads(self) -> tuple[int, int]:
        """The padding, with None worked out."""
        return self.padding or ((self.side - 1) // 2, self.side // 2)


HALVING = Window(3, stride=2, padding=(0, 1))
"""The stride-2 window of VQGAN: a row and a column of zeros past the bottom right edge only."""


class Conv(nnx.Module):
    """A convolution (no kernel flip) of a [B Y X I] map to [B y x O], with a bias if `bias`.

    The kernel starts as a normal of variance `scale**2 / fan_in` and the bias at zero. For Muon it
    is one matrix: rows, columns and I are summed away, O is what comes out.
    """

    def __init__(
        self,
        num_in: int,
        num_out: int,
        window: Window = Window(),
        *,
        rngs: nnx.Rngs,
        bias: bool = True,
        scale: float = 1.0,
    ) -> None:
        shape = (window.side, window.side, num_in, num_out)
        deviation = scale * (window.side**2 * num_in) ** -0.5
        kernel = jax.random.normal(rngs.params(), shape) * deviation
        self.kernel = nnx.Param(kernel, axes="__IO", summed="_I")
        self.bias = nnx.Param(jnp.zeros((num_out,)), axes="O", summed="") if bias else None
        self.window = window

    def __call__(self, x: Float[Array, "B Y X I"]) -> Float[Array, "B y x O"]:
        """The convolved map, in `x`'s dtype.

        The kernel is gathered whole first: where I lies on a mesh axis of the batch and O on
        another, XLA's partitioner (jaxlib 0.10.2, CPU) computes wrong gradients without a word.
        """
        window, kernel = self.window, constrain(self.kernel[...], "____")
        out = jax.lax.conv_general_dilated(
            x, kernel.astype(x.dtype), (window.stride,) * 2, (window.pads,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return out if self.bias is None else out + constrain(self.bias[...], "_").astype(x.dtype)


class GroupNorm(nnx.Module):
    """scale * (x - mean) / sqrt(variance + eps) + bias, mean and (biased) variance over a page's
    positions and one group of neighbouring channels, in float32 (Wu & He 2018, eq. 1).

    Raises `ValueError` when the groups do not divide the channels.
    """

    def __init__(self, num_channels: int, num_groups: int = 32, *, eps: float = 1e-6) -> None:
        if num_channels % num_groups:
            raise ValueError(
                f"{num_channels} channels are not a multiple of {num_groups} groups; "
                "change the width or num_groups"
            )
        self.scale = nnx.Param(jnp.ones((num_channels,)), axes="C", summed="")
        self.bias = nnx.Param(jnp.zeros((num_channels,)), axes="C", summed="")
        self.num_groups = num_groups
        self.eps = eps

    def __call__(self, x: Float[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
        """The normalised map, in `x`'s dtype."""
        B, Y, X, C = x.shape
        wide = x.astype(jnp.float32).reshape(B, Y, X, self.num_groups, C // self.num_groups)
        wide = wide - wide.mean(axis=(1, 2, 4), keepdims=True)
        variance = jnp.square(wide).mean(axis=(1, 2, 4), keepdims=True)
        normal = (wide * jax.lax.rsqrt(variance + self.eps)).reshape(x.shape)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)


def enlarge(x: Float[Array, "B y x C"], times: int = 2) -> Float[Array, "B Y X C"]:
    """Nearest-neighbour upsampling: each position becomes a square of `times` x `times`."""
    B, y, width, C = x.shape
    tiles = jnp.broadcast_to(x[:, :, None, :, None], (B, y, times, width, times, C))
    return tiles.reshape(B, y * times, width * times, C)


def shrink(x: Float[Array, "B Y X C"], times: int = 2) -> Float[Array, "B y x C"]:
    """Average pooling: the mean of each square of `times` x `times`, the inverse of `enlarge`.

    Raises `ValueError` when a side is not a multiple of `times`.
    """
    B, Y, X, C = x.shape
    if Y % times or X % times:
        raise ValueError(f"a map of {X} x {Y} cannot be averaged in squares of {times}")
    return x.reshape(B, Y // times, times, X // times, times, C).mean(axis=(2, 4))
