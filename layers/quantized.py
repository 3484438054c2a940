"""Kernels in fewer bits than float32, for generation: int8 with a scale a column, or bfloat16."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int8

WEIGHTS = ("float32", "bfloat16", "int8")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A kernel as `values * scale`: `scale` has the kernel's axes, those that its product sums away
    of size 1, so that it may as well be multiplied with the product."""

    values: Int8[Array, ...]
    scale: Float[Array, ...]

    def __getitem__(self, index: object) -> Quantized:
        """Itself, as `[...]` of an `nnx.Variable` asks for."""
        return self

    def wide(self) -> Float[Array, ...]:
        """The kernel in float32."""
        return self.values * self.scale


def quantized(kernel: Float[Array, ...], summed: tuple[int, ...]) -> Quantized:
    """Rounded to 255 levels, symmetric around zero, up to each column's largest number."""
    most = jnp.abs(kernel).max(axis=summed, keepdims=True).astype(jnp.float32)
    scale = jnp.where(most > 0, most, 1.0) / 127
    return Quantized(jnp.round(kernel / scale).astype(jnp.int8), scale)


def narrowed(module: nnx.Module, weights: Any, kind: str) -> tuple[Any, dict[str, float]]:
    """The weights with every kernel of a product in another of `WEIGHTS`, and the relative RMS of
    what each has lost by its name. `module` says the axes; its arrays are not looked at.

    Norms, biases and tables whose rows are looked up stay as they are, an embedding that is the
    head too among them. Raises `ValueError` for an unknown kind.
    """
    if kind not in WEIGHTS:
        raise ValueError(f"weights {kind!r} are not known; there is: {', '.join(WEIGHTS)}")
    lost: dict[str, float] = {}
    if kind == "float32":
        return weights, lost
    variables = {path: v for path, v in nnx.to_flat_state(nnx.state(module, nnx.Param))}

    def narrow(path: tuple[Any, ...], tree: Any) -> Any:
        if isinstance(tree, Mapping):
            return {name: narrow((*path, name), part) for name, part in tree.items()}
        axes, summed = (variables[path].get_metadata()[name] for name in ("axes", "summed"))
        if path[-1] != "kernel" or "V" in summed:  # a table of codes
            return tree
        made, error = _narrow(tree, tuple(axes.index(letter) for letter in summed), kind)
        lost["/".join(map(str, path))] = float(error)
        return made

    return narrow((), weights), lost


@functools.partial(jax.jit, static_argnums=(1, 2))
def _narrow(kernel: Array, summed: tuple[int, ...], kind: str) -> tuple[Any, Float[Array, ""]]:
    """The kernel and the relative RMS of what it has lost."""
    made = kernel.astype(jnp.bfloat16) if kind == "bfloat16" else quantized(kernel, summed)
    wide = made.wide() if isinstance(made, Quantized) else made.astype(jnp.float32)
    return made, jnp.sqrt(jnp.square(wide - kernel).mean() / jnp.square(kernel).mean())
