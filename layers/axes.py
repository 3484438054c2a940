"""One alphabet: a letter is the shape annotation, the einsum index, the parameter axis and the
sharding rule."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

ALPHABET: Mapping[str, str] = {
    "B": "batch", "T": "position", "S": "cached position", "D": "width", "L": "stacked layers",
    "N": "heads", "K": "kv heads", "H": "head size", "F": "hidden", "V": "vocabulary",
    "Y": "pixel rows", "X": "pixel columns", "y": "code rows", "x": "code columns",
    "C": "channels", "Z": "code vector", "Q": "codes per position",
    "I": "convolution in", "O": "convolution out", "_": "never sharded",
}  # fmt: skip

Rules = Mapping[str, str | tuple[str, ...] | None]
_RULES: contextvars.ContextVar[Rules] = contextvars.ContextVar("sharding_rules")


@contextlib.contextmanager
def use_rules(rules: Rules) -> Iterator[None]:
    """Make `rules` (letter -> mesh axes) what `constrain` follows inside the block."""
    token = _RULES.set(rules)
    try:
        yield
    finally:
        _RULES.reset(token)


def current_rules() -> Rules:
    """What `use_rules` set around here; empty without one."""
    return _RULES.get({})


def partition_spec(
    axes: str, shape: tuple[int, ...], rules: Rules, mesh_sizes: Mapping[str, int]
) -> PartitionSpec:
    """Where an array with these axes lies on a mesh of these axis sizes.

    A mesh axis that an earlier letter claimed is skipped, and so is one that does not divide the
    dimension. Raises `ValueError` for a letter that is not in the alphabet or a rank that differs.
    """
    if len(axes) != len(shape):
        raise ValueError(f"axes {axes!r} name {len(axes)} dimensions but the shape is {shape}")
    claimed: set[str] = set()
    parts: list[tuple[str, ...] | None] = []
    for letter, size in zip(axes, shape, strict=True):
        if letter not in ALPHABET:
            raise ValueError(
                f"axis {letter!r} of {axes!r} is not in the alphabet {''.join(ALPHABET)}"
            )
        wanted = rules.get(letter) or ()
        taken: list[str] = []
        ways = 1
        for name in (wanted,) if isinstance(wanted, str) else wanted:
            grown = ways * mesh_sizes.get(name, 1)
            if name in mesh_sizes and name not in claimed and size % grown == 0:
                taken.append(name)
                claimed.add(name)
                ways = grown
        parts.append(tuple(taken) or None)
    return PartitionSpec(*parts)


def spec(axes: str, shape: tuple[int, ...]) -> PartitionSpec | None:
    """Where `constrain` would put it; None where it does nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    rules = _RULES.get({})
    if mesh.empty or mesh.size == 1 or not rules:
        return None
    return partition_spec(axes, shape, rules, dict(mesh.shape))


def constrain(x: jax.Array, axes: str) -> jax.Array:
    """Pin `x` to the mesh by its letters; does nothing on one device or without rules."""
    wanted = spec(axes, x.shape)
    return x if wanted is None else jax.lax.with_sharding_constraint(x, wanted)


def shard_map(run: Callable[..., Any], query: Any, key: Any, value: Any, mask: Any) -> Any:
    """`run(query, key, value, mask)`, an attention that XLA cannot partition, on each device's own
    rows and heads; as it is on one device or without rules.

    Heads are cut where those of the queries are. A kv head goes to every device that has a query
    head of its group: where there are fewer of them than devices, each is repeated.
    """
    mesh, rules = jax.sharding.get_abstract_mesh(), _RULES.get({})
    if mesh.empty or mesh.size == 1 or not rules:
        return run(query, key, value, mask)
    sizes = dict(mesh.shape)
    rows, _, heads, _ = partition_spec("B_N_", query.shape, rules, sizes)
    heads = (heads,) if isinstance(heads, str) else heads or ()
    ways = math.prod(sizes[name] for name in heads)
    num_heads, num_kv_heads = query.shape[2], key.shape[2]
    times = math.lcm(num_kv_heads, ways) // num_kv_heads
    if num_heads % (num_kv_heads * times):
        times = num_heads // num_kv_heads
    if times > 1:
        key, value = (jnp.repeat(x, times, axis=2) for x in (key, value))
    array = PartitionSpec(rows, None, heads, None)
    leaves, shape = jax.tree.flatten(mask)
    of_mask = tuple(PartitionSpec(rows if x.shape[0] > 1 else None) for x in leaves)

    def own(query: Any, key: Any, value: Any, *leaves: Any) -> Any:
        return run(query, key, value, jax.tree.unflatten(shape, leaves))

    specs = (array, array, array, *of_mask)
    cut = jax.shard_map(own, in_specs=specs, out_specs=array, check_vma=False)
    return cut(query, key, value, *leaves)


def axes_tree(module: nnx.Module, *, field: str = "axes") -> dict[Any, Any]:
    """The letters of every parameter, nested as `nnx.to_pure_dict` nests their arrays.

    `field="summed"` gives the letters that its product sums away instead (none for a scale).
    """
    tree: dict[Any, Any] = {}
    for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        here = tree
        for key in path[:-1]:
            here = here.setdefault(key, {})
        here[path[-1]] = variable.get_metadata()[field]
    return tree
