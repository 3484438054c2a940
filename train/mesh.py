"""Named axes over the devices there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh


def build(shape: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with automatic axes (since JAX 0.9 the default is explicit ones). One size may be -1:
    the rest.

    Raises `ValueError` when the sizes do not use every device exactly once.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = dict(shape)
    for name, size in sizes.items():
        if size < 1 and size != -1:
            raise ValueError(f"mesh axis {name} has size {size}; give a positive one, or -1")
    open_axes = [name for name, size in sizes.items() if size == -1]
    if len(open_axes) > 1:
        raise ValueError(f"mesh {sizes} leaves {' and '.join(open_axes)} open; only one may be -1")
    if open_axes:
        fixed = math.prod(size for size in sizes.values() if size != -1)
        if len(devices) % fixed:
            raise ValueError(
                f"mesh {dict(shape)} cannot divide {len(devices)} devices by {fixed}; "
                "change config.loop.mesh or the number of devices"
            )
        sizes[open_axes[0]] = len(devices) // fixed
    if math.prod(sizes.values()) != len(devices):
        raise ValueError(
            f"mesh {dict(shape)} needs {math.prod(sizes.values())} devices and there are "
            f"{len(devices)}; change config.loop.mesh or the number of devices"
        )
    grid = np.array(devices).reshape(tuple(sizes.values()))
    return Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))
