"""Named axes over the devices there are, and which part of each axis crosses the slow network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")
"""What a mesh may be cut along, from the least talk to the most: `data` holds copies of the
parameters, `fsdp` cuts parameters and batch, `tensor` cuts heads, hidden units and vocabulary."""

RULES: Mapping[str, str | tuple[str, ...]] = {
    "B": ("data", "fsdp"), "D": "fsdp",
    "N": "tensor", "K": "tensor", "F": "tensor", "V": "tensor",
    "I": "fsdp", "O": "tensor",
}  # fmt: skip
"""The rule table for any mesh of these axes: an axis that a mesh lacks is skipped."""


def build(
    shape: Mapping[str, int],
    devices: Sequence[Any] | None = None,
    *,
    dcn: Mapping[str, int] | None = None,
    said: str = "config.loop.mesh",
) -> Mesh:
    """A mesh with automatic axes (since JAX 0.9 the default is explicit ones), in the order of
    `AXES`. One size may be -1: the rest.

    `dcn` says into how many parts the slow network between slices or hosts cuts an axis: with a
    shape of {"data": 4, "fsdp": 8} and {"data": 2}, each of two slices has two of the four. One
    part may be -1: as many as there are slices. `said` names for errors where the shape stands.
    Raises `ValueError` when the sizes do not use every device exactly once, or cannot be laid over
    the slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = resolve(shape, len(devices), name="mesh", counted="devices", said=said)
    grid = lay_out(sizes, devices, dcn or {})
    return Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def of_flag(text: str) -> dict[str, int]:
    """`data=4,tensor=2` as sizes by axis; raises `ValueError` for anything else."""
    sizes = {}
    for part in text.split(","):
        axis, _, size = part.strip().partition("=")
        if not size.removeprefix("-").isdigit() or axis in sizes:
            known = ", ".join(AXES)
            raise ValueError(f"mesh {text!r} is not like data=4,tensor=2, sizes of {known}")
        sizes[axis] = int(size)
    return sizes


def resolve(
    shape: Mapping[str, int], total: int, *, name: str, counted: str, said: str = ""
) -> dict[str, int]:
    """The sizes in the order of `AXES`, -1 worked out; raises `ValueError` unless their product is
    `total`."""
    for axis, size in shape.items():
        if axis not in AXES:
            raise ValueError(f"{name} axis {axis!r} is not known; there is: {', '.join(AXES)}")
        if size < 1 and size != -1:
            raise ValueError(f"{name} axis {axis} has size {size}; give a positive one, or -1")
    sizes = {axis: shape[axis] for axis in AXES if axis in shape}
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    if len(open_axes) > 1:
        axes = " and ".join(open_axes)
        raise ValueError(f"{name} {sizes} leaves {axes} open; only one may be -1")
    remedy = f"change {said or f'config.loop.{name}'} or the number of {counted}"
    if open_axes:
        fixed = math.prod(size for size in sizes.values() if size != -1)
        if total % fixed:
            raise ValueError(
                f"{name} {dict(shape)} cannot divide {total} {counted} by {fixed}; {remedy}"
            )
        sizes[open_axes[0]] = total // fixed
    product = math.prod(sizes.values())
    if product != total:
        raise ValueError(
            f"{name} {dict(shape)} needs {product} {counted} and there are {total}; {remedy}"
        )
    return sizes


def granules(devices: Sequence[Any]) -> tuple[str, int]:
    """By which attribute of a device the slow network cuts them, and into how many parts: slices
    where there are several (of TPUs; of GPUs a host is one), else processes."""
    slices = {getattr(device, "slice_index", None) for device in devices}
    if len(slices) > 1:
        return "slice_index", len(slices)
    return "process_index", len({device.process_index for device in devices})


def lay_out(sizes: Mapping[str, int], devices: Sequence[Any], dcn: Mapping[str, int]) -> np.ndarray:
    """The devices in an array of these sizes: TPUs so that neighbours are wired to each other,
    others in their own order.

    Raises `ValueError` when TPUs cannot be laid so, or when there are several slices and `dcn`
    does not say which axis crosses them.
    """
    kind, count = granules(devices)
    platform = devices[0].platform
    if not dcn:
        if platform != "tpu":
            return np.array(devices).reshape(tuple(sizes.values()))
        if kind == "slice_index":
            raise ValueError(
                f"the devices are in {count} slices; say which mesh axis crosses them, "
                f"such as config.loop.dcn_mesh={{'data': {count}}}"
            )
        return _of_tpus(sizes, lambda shape: mesh_utils.create_device_mesh(
            shape, devices, allow_split_physical_axes=True
        ))  # fmt: skip
    named = "slices" if kind == "slice_index" else "processes"
    outer = resolve(dcn, count, name="dcn_mesh", counted=named)
    for axis, parts in outer.items():
        if sizes.get(axis, 1) % parts:
            raise ValueError(
                f"mesh axis {axis} of size {sizes.get(axis, 1)} is not a multiple of the {parts} "
                "parts that config.loop.dcn_mesh cuts it into; change one of them"
            )
    parts = tuple(outer.get(axis, 1) for axis in sizes)
    inner = {axis: size // cut for (axis, size), cut in zip(sizes.items(), parts, strict=True)}
    return _of_tpus(inner, lambda shape: mesh_utils.create_hybrid_device_mesh(
        shape, parts, devices, process_is_granule=kind == "process_index",
        allow_split_physical_axes=True,
    ))  # fmt: skip


def _of_tpus(sizes: Mapping[str, int], arrange: Any) -> np.ndarray:
    try:
        return arrange(tuple(sizes.values()))
    except (NotImplementedError, AssertionError, ValueError) as problem:
        raise ValueError(
            f"no wiring of the devices makes a mesh of {dict(sizes)} in each slice; change "
            f"config.loop.mesh or config.loop.dcn_mesh ({problem})"
        ) from problem
