"""The tokenizer's two halves. The patch backbone is matmul only: fast on TPU and CPU alike.

A page is cut into patches of f x f pixels, each patch is a vector, and per-patch MLPs with one 3 x
3 neighbourhood mix (a shifted concatenation and one matmul) work on it. A linear path around the
MLPs carries most of the picture from the first step on.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from layers.axes import constrain
from layers.block import Stack
from layers.einsum import Einsum
from layers.norm import RMSNorm


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """`downsampling` f is pixels a code position along each side."""

    name: str = "patch"
    downsampling: int = 8
    width: int = 192
    hidden: int = 384
    num_blocks: int = 2
    channels: int = 3

    def __post_init__(self) -> None:
        if self.name != "patch":
            raise ValueError(f"backbone {self.name!r} is not known; there is: patch")
        if self.downsampling not in (4, 8, 16):
            raise ValueError(f"downsampling {self.downsampling} is not 4, 8 or 16")


def cut(pixels: Float[Array, "B Y X C"], f: int) -> Float[Array, "B y x I"]:
    """Pages into patches; raises `ValueError` when a side is not a multiple of f."""
    B, Y, X, C = pixels.shape
    if Y % f or X % f:
        raise ValueError(f"a page of {X} x {Y} px cannot be cut into patches of {f} px")
    tiles = pixels.reshape(B, Y // f, f, X // f, f, C).transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(B, Y // f, X // f, f * f * C)


def join(patches: Float[Array, "B y x I"], f: int) -> Float[Array, "B Y X C"]:
    """The inverse of `cut`."""
    B, y, x, I = patches.shape  # noqa: E741  # a letter of the alphabet
    tiles = patches.reshape(B, y, x, f, f, I // (f * f)).transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(B, y * f, x * f, I // (f * f))


class PatchMLP(nnx.Module):
    """x + down(silu(up(norm(x)))) at each position by itself."""

    def __init__(self, sizes: dict[str, int], *, rngs: nnx.Rngs) -> None:
        self.norm = RMSNorm(sizes["D"])
        self.up = Einsum("ByxD,DF->ByxF", sizes, rngs=rngs)
        self.down = Einsum("ByxF,FD->ByxD", sizes, rngs=rngs, scale=0.5)

    def __call__(self, x: Float[Array, "B y x D"]) -> Float[Array, "B y x D"]:
        """The updated positions."""
        return constrain(x + self.down(jax.nn.silu(self.up(self.norm(x)))), "ByxD")


class NeighbourMix(nnx.Module):
    """x + one linear map of the 3 x 3 neighbourhood (zeros past the page's edge)."""

    def __init__(self, sizes: dict[str, int], *, rngs: nnx.Rngs) -> None:
        self.norm = RMSNorm(sizes["D"])
        self.mix = Einsum("ByxI,ID->ByxD", {**sizes, "I": 9 * sizes["D"]}, rngs=rngs, scale=0.5)

    def __call__(self, x: Float[Array, "B y x D"]) -> Float[Array, "B y x D"]:
        """The updated positions."""
        _, y, width, _ = x.shape
        padded = jnp.pad(self.norm(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [padded[:, i : i + y, j : j + width] for i in range(3) for j in range(3)]
        return x + self.mix(jnp.concatenate(shifted, axis=-1))


class Trunk(nnx.Module):
    """The MLPs with the neighbourhood mix after the first."""

    def __init__(self, config: BackboneConfig, *, rngs: nnx.Rngs) -> None:
        sizes = {"D": config.width, "F": config.hidden}
        self.first = PatchMLP(sizes, rngs=rngs)
        self.mix = NeighbourMix(sizes, rngs=rngs)
        self.rest = Stack(lambda r: PatchMLP(sizes, rngs=r), config.num_blocks - 1, rngs=rngs)
        self.norm = RMSNorm(config.width)

    def __call__(self, x: Float[Array, "B y x D"]) -> Float[Array, "B y x D"]:
        """Normalised features of each position."""
        x = self.mix(self.first(x))
        x, _ = self.rest.scan(lambda layer, x, _: (layer(x), None), x)
        return self.norm(x)


class PixelEncoder(nnx.Module):
    """Pixels in [-1, 1] to the quantizer's input at each code position."""

    def __init__(self, config: BackboneConfig, code_width: int, *, rngs: nnx.Rngs) -> None:
        self.f = config.downsampling
        sizes = {"I": self.f**2 * config.channels, "D": config.width, "Z": code_width}
        self.stem = Einsum("ByxI,ID->ByxD", sizes, rngs=rngs)
        self.trunk = Trunk(config, rngs=rngs)
        self.head = Einsum("ByxD,DZ->ByxZ", sizes, rngs=rngs)
        self.direct = Einsum("ByxI,IZ->ByxZ", sizes, rngs=rngs)

    def __call__(self, pixels: Float[Array, "B Y X C"]) -> Float[Array, "B y x Z"]:
        """Unbounded vectors; the quantizer bounds them."""
        patches = cut(pixels, self.f)
        return self.head(self.trunk(self.stem(patches))) + self.direct(patches)


class PixelDecoder(nnx.Module):
    """The quantizer's values to pixels (about [-1, 1], not clipped)."""

    def __init__(self, config: BackboneConfig, code_width: int, *, rngs: nnx.Rngs) -> None:
        self.f = config.downsampling
        sizes = {"O": self.f**2 * config.channels, "D": config.width, "Z": code_width}
        self.stem = Einsum("ByxZ,ZD->ByxD", sizes, rngs=rngs)
        self.trunk = Trunk(config, rngs=rngs)
        self.head = Einsum("ByxD,DO->ByxO", sizes, rngs=rngs, scale=0.3)
        self.direct = Einsum("ByxZ,ZO->ByxO", sizes, rngs=rngs, scale=0.5)

    def __call__(self, values: Float[Array, "B y x Z"]) -> Float[Array, "B Y X C"]:
        """The page the values stand for."""
        patches = self.head(self.trunk(self.stem(values))) + self.direct(values)
        return join(patches, self.f)
