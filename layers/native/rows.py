"""The C++ functions over arrays."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from layers.kernels import target
from layers.native import building
from layers.quantized import Quantized

CHOICES = ("auto", "off", "always")
WIDE = 32  # columns of a panel, as in rows.cc
MOST_ROWS = 64  # beyond, a product is bound by its arithmetic, and XLA's is as good
FEWEST_NUMBERS = 1 << 20  # of a layer: what is smaller stays in a core's cache under XLA as well
_CHOICE: contextvars.ContextVar[str] = contextvars.ContextVar("native", default="auto")


@contextlib.contextmanager
def use_native(choice: str) -> Iterator[None]:
    """Inside the block loops over tokens are traced with them where they can serve: `auto` if
    layers are large, `always`, or `off`. Raises `ValueError` for another."""
    if choice not in CHOICES:
        raise ValueError(f"native {choice!r} is not known; there is: {', '.join(CHOICES)}")
    token = _CHOICE.set(choice)
    try:
        yield
    finally:
        _CHOICE.reset(token)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Panels:
    """A kernel as it is read from end to end: `columns` are the axes of its columns, which of an
    int8 one have scales."""

    panels: Array  # [columns / 32, depth, 32]
    scale: Float[Array, " _"] | None
    columns: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    def __getitem__(self, index: object) -> Panels:
        """Itself, as `[...]` of an `nnx.Variable` asks for."""
        return self


def can_serve(num_rows: int, num_numbers: int, dtype: str) -> bool:
    """Whether a loop whose steps have so many rows, over layers of so many numbers, is to have
    panels: on the one CPU, in float32, unless it is off or there is no compiler."""
    choice = "off" if os.environ.get(building.SWITCH) == "off" else _CHOICE.get()
    if choice == "off" or (choice == "auto" and num_numbers < FEWEST_NUMBERS):
        return False
    mesh = jax.sharding.get_abstract_mesh()
    alone = mesh.empty or mesh.size == 1
    fits = num_rows <= MOST_ROWS and dtype == "float32"
    return fits and alone and target()[0] == "cpu" and building.ready()


def panels(kernels: Array | Quantized, num_summed: int, layer: int | None = None) -> Panels:
    """The panels of a kernel whose first axes are summed away, or of one layer of a stack of
    such."""
    if layer is None:
        kernels, layer = jax.tree.map(lambda array: array[None], kernels), 0
    values = kernels.values if isinstance(kernels, Quantized) else kernels
    columns = values.shape[1 + num_summed :]
    size = math.prod(columns)
    depth, count = values[0].size // size, -(-size // WIDE)
    packed = jax.ShapeDtypeStruct((count, depth, WIDE), values.dtype)
    made = jax.ffi.ffi_call("letterpress_pack", packed)(
        values.reshape(-1, depth, size), layer=np.int64(layer)
    )
    if not isinstance(kernels, Quantized):
        return Panels(made, None, columns)
    scale = jnp.pad(kernels.scale[layer].reshape(-1), (0, count * WIDE - size))
    return Panels(made, scale, columns)


def _or_none(array: Array | None) -> Array:
    return jnp.zeros((0,), jnp.float32) if array is None else array


def products(
    x: Float[Array, "*B D"],
    kernels: Sequence[Panels],
    *,
    norm: tuple[Array, float] | None = None,
    residual: Float[Array, "*B _"] | None = None,
    gated: bool = False,
) -> list[Array]:
    """The product of each row with every kernel, its columns' axes in place of the last; rows are
    first divided by their root mean square and scaled by a `norm` (scale, eps). To it is added the
    `residual`; or if `gated` there is one for two kernels, the sigmoid-weighted first times the
    second."""
    out = [kernels[0]] if gated else kernels
    shapes = [jax.ShapeDtypeStruct((*x.shape[:-1], math.prod(k.columns)), x.dtype) for k in out]
    scale, eps = norm or (None, 0.0)
    call = jax.ffi.ffi_call("letterpress_products", shapes)
    parts = [part for k in kernels for part in (k.panels, _or_none(k.scale))]
    found = call(x, _or_none(scale), _or_none(residual), *parts, eps=np.float32(eps), gated=gated)
    return [y.reshape(*x.shape[:-1], *k.columns) for y, k in zip(found, out, strict=True)]


def attend(
    projected: tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]],
    rotations: tuple[Float[Array, "B T 1 P"], Float[Array, "B T 1 P"]],
    norms: tuple[Array | None, Array | None, float],
    seen: Bool[Array, "#B 1 #T S"],
    cached: tuple[Float[Array, "B K S H"], Float[Array, "B K S H"]],
    at: Int[Array, " B"] | Int[Array, ""],
) -> tuple[Float[Array, "B T N H"], Array, Array]:
    """What queries find, and keys and values with the new ones at `at`, written in place.

    Queries and keys come as they were projected: they are divided by their root mean square if
    `norms` (of queries, of keys, eps) has scales, and turned.
    """
    query, *_ = projected
    like = lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype)  # noqa: E731
    call = jax.ffi.ffi_call(
        "letterpress_attend", [like(query), *map(like, cached)],
        input_output_aliases={9: 1, 10: 2},
    )  # fmt: skip
    of_query, of_key, eps = norms
    scales = _or_none(of_query), _or_none(of_key)
    where = at.astype(jnp.int32)
    found, keys, values = call(
        *projected, *rotations, *scales, seen, where, *cached, eps=np.float32(eps)
    )
    return found, keys, values


def settled(tree: Any) -> Any:
    """The same arrays, where they will be read fastest: in large pages, if Linux has some."""
    arrays, shape = jax.tree.flatten(tree)
    places = {i: i for i in range(len(arrays))}
    like = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays]
    call = jax.ffi.ffi_call("letterpress_settle", like, input_output_aliases=places)
    return jax.tree.unflatten(shape, call(*arrays))


def heads_fit(head_size: int) -> bool:
    """Whether `attend` reads heads of that size: of some whole vectors."""
    return head_size in (16, 32, 64, 128)
