"""What a step turns into the next: plain nested dicts of arrays, and where each of them lies."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from layers.axes import Rules, partition_spec

Tree = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """`extra` holds the variables that are no parameters; `ema` is empty when no average is
    kept; `guard` is the bookkeeping of `train.guard`."""

    step: Any  # an int32 scalar; a shape or a sharding in a state of those
    params: Tree
    extra: Tree
    opt: Any
    ema: Tree
    guard: Tree = dataclasses.field(default_factory=dict)

    @property
    def weights(self) -> Tree:
        """What evaluation and export use: the average where there is one."""
        return self.ema or self.params


def names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The keys of the dicts on the way to a leaf, as strings: what `Task.group` receives."""
    return tuple(str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey))


def by_names(axes: Tree) -> dict[tuple[str, ...], str]:
    """Nested letters (see `axes_tree`) as one dict from `names` to letters."""
    leaves = jax.tree_util.tree_flatten_with_path(axes, is_leaf=lambda x: isinstance(x, str))[0]
    return {names(path): letters for path, letters in leaves}


def shardings(state: State, axes: Tree, mesh: Mesh, rules: Rules) -> State:
    """A `NamedSharding` for each array of an abstract state.

    Averages lie where their parameter lies, and so does every optimizer array whose path ends in a
    parameter's and has its shape: under automatic axes `jit(optimizer.init)` would replicate them.
    Adafactor's `v_row` and `v_col` lie where their parameter's other axes lie. Counts are whole on
    every device.
    """
    sizes = dict(mesh.shape)
    letters = by_names(axes)
    shapes = {
        names(path): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(state.params)[0]
    }
    specs = {
        owner: partition_spec(letters[owner], shape, rules, sizes)
        for owner, shape in shapes.items()
    }

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        keys = names(path)
        for start in range(len(keys)):
            owner = keys[start:]
            if owner not in shapes:
                continue
            if shapes[owner] == leaf.shape:
                return NamedSharding(mesh, specs[owner])
            gone = _averaged_away(path, shapes[owner])
            if gone is not None and _without(shapes[owner], gone) == leaf.shape:
                return NamedSharding(mesh, PartitionSpec(*_without(tuple(specs[owner]), gone)))
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, state)


def _averaged_away(path: tuple[Any, ...], shape: tuple[int, ...]) -> int | None:
    """Which axis of its parameter a factored moment lacks: `v_row` the longest, `v_col` the second.

    Sorted by the call that optax sorts with, since of equal sides any may come first.
    """
    fields = {k.name for k in path if isinstance(k, jax.tree_util.GetAttrKey)}
    for field, rank in (("v_row", -1), ("v_col", -2)):
        if field in fields and len(shape) > 1:
            return int(np.argsort(shape)[rank])
    return None


def _without(items: tuple[Any, ...], i: int) -> tuple[Any, ...]:
    return items[:i] + items[i + 1 :]
