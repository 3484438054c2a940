"""The patch backbone: matmul only, fast on TPU and CPU alike.

A page is cut into patches of f x f pixels, each patch is a vector, and per-patch MLPs with one 3 x
3 neighbourhood mix (a shifted concatenation and one matmul) work on it. A linear path around the
MLPs carries most of the picture from the first step on.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from layers.axes import constrain
from layers.block import Stack
from layers.einsum import Einsum
from layers.norm import RMSNorm
from tokenizer.backbones.config import BackboneConfig, require_whole


def cut(pixels: Float[Array, "B Y X C"], f: int) -> Float[Array, "B y x I"]:
    """Pages into patches; raises `ValueError` when a side is not a multiple of f."""
    B, Y, X, C = pixels.shape
    require_whole(Y, X, f)
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
        more = config.num_blocks - 1  # arrays for no layers could not be saved
        self.rest = Stack(lambda r: PatchMLP(sizes, rngs=r), more, rngs=rngs) if more else None
        self.norm = RMSNorm(config.width)

    def __call__(self, x: Float[Array, "B y x D"]) -> Float[Array, "B y x D"]:
        """Normalised features of each position."""
        x = self.mix(self.first(x))
        if self.rest is not None:
            x, _ = self.rest.scan(lambda layer, x, _: (layer(x), None), x)
        return self.norm(x)


class PatchEncoder(nnx.Module):
    """Patches through the trunk and beside it, added."""

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


class PatchDecoder(nnx.Module):
    """The mirror image: values through the trunk and beside it, added as patches."""

    last = ("head", "direct")

    def __init__(self, config: BackboneConfig, code_width: int, *, rngs: nnx.Rngs) -> None:
        self.f = config.downsampling
        sizes = {"O": self.f**2 * config.channels, "D": config.width, "Z": code_width}
        self.stem = Einsum("ByxZ,ZD->ByxD", sizes, rngs=rngs)
        self.trunk = Trunk(config, rngs=rngs)
        self.head = Einsum("ByxD,DO->ByxO", sizes, rngs=rngs, scale=0.3)
        self.direct = Einsum("ByxZ,ZO->ByxO", sizes, rngs=rngs, scale=0.5)

    def features(self, values: Float[Array, "B y x Z"]) -> tuple[Array, Array]:
        """The trunk's features [B y x D], and the values [B y x Z] as they are."""
        return self.trunk(self.stem(values)), values

    def paint(self, features: tuple[Array, Array]) -> Float[Array, "B Y X C"]:
        """Two linear maps to patches, added."""
        trunk, values = features
        return join(self.head(trunk) + self.direct(values), self.f)
