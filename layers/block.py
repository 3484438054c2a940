"""The pre-norm transformer block and the stack of them that a scan runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from layers.attention import Attention, LayerCache
from layers.axes import constrain
from layers.mlp import SwiGLU
from layers.norm import RMSNorm

REMATS = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""What the backward pass of a stack keeps by name: everything, nothing but each layer's input, or
also what the weights' products gave (the attention's own products are made again)."""


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """The sizes of a transformer trunk, named as in the alphabet's table."""

    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    hidden: int
    qk_norm: bool = False

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )

    @property
    def sizes(self) -> dict[str, int]:
        """Letter -> size, for `Einsum`."""
        heads = {"N": self.num_heads, "K": self.num_kv_heads, "H": self.head_size}
        return {"D": self.width, "F": self.hidden, **heads}


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Zeroes each value of an update with probability `rate` and divides the rest by 1 - rate
    (Srivastava et al. 2014, section 4), by a key that belongs to one layer of one step."""

    rate: float
    key: Array

    def __call__(self, update: Float[Array, "B T D"], which: int) -> Float[Array, "B T D"]:
        """The thinned update; `which` tells a layer's updates apart."""
        kept = jax.random.bernoulli(
            jax.random.fold_in(self.key, which), 1 - self.rate, update.shape
        )
        return jnp.where(kept, update / (1 - self.rate), 0).astype(update.dtype)


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the outputs start small, by 1 / sqrt(2 L)."""

    def __init__(self, config: BlockConfig, *, rngs: nnx.Rngs) -> None:
        scale = (2 * config.num_layers) ** -0.5
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config.sizes, rngs=rngs, qk_norm=config.qk_norm, scale=scale)
        self.mlp_norm = RMSNorm(config.width)
        self.mlp = SwiGLU(config.sizes, rngs=rngs, scale=scale)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        rotations: tuple[Array, Array],
        mask: Bool[Array, "#B 1 #T S"],
        *,
        cache: LayerCache | None = None,
        at: Int[Array, " B"] | None = None,
        dropout: Dropout | None = None,
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """One layer; see `Attention` for the mask and the cache. Without `dropout` nothing is
        random."""
        update, cache = self.attention(self.attention_norm(x), rotations, mask, cache=cache, at=at)
        x = constrain(x + (update if dropout is None else dropout(update, 0)), "BTD")
        update = self.mlp(self.mlp_norm(x))
        return constrain(x + (update if dropout is None else dropout(update, 1)), "BTD"), cache


class Stack(nnx.Module):
    """L layers of one shape, their arrays stacked on a leading axis and run by `jax.lax.scan`."""

    def __init__(
        self, make: Callable[[nnx.Rngs], nnx.Module], num_layers: int, *, rngs: nnx.Rngs
    ) -> None:
        def arrays(key: Array) -> Any:
            return nnx.to_pure_dict(nnx.state(make(nnx.Rngs(key))))

        layer = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
        stacked = jax.vmap(arrays)(jax.random.split(rngs.params(), num_layers))
        state = nnx.state(layer)
        nnx.replace_by_pure_dict(state, stacked)
        for _, variable in nnx.to_flat_state(state):
            variable.set_metadata(axes="L" + variable.get_metadata()["axes"])
        self.layer = nnx.merge(nnx.graphdef(layer), state)
        self.num_layers = num_layers

    def scan(
        self,
        step: Callable[..., tuple[Any, Any]],
        carry: Any,
        per_layer: Any = None,
        *,
        remat: str = "none",
    ) -> tuple[Any, Any]:
        """Fold `step(layer, carry, item) -> (carry, item)` over the layers in order.

        `remat` is one of `REMATS`: gradients stay the same, memory is paid for with time. Raises
        `ValueError` for another.
        """
        require_remat(remat)
        graphdef, state = nnx.split(self.layer)

        def body(carry: Any, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
            arrays, item = inputs
            return step(nnx.merge(graphdef, arrays), carry, item)

        if remat != "none":  # inside a scan nothing merges the two passes, so CSE is no danger
            body = jax.checkpoint(body, prevent_cse=False, policy=REMATS[remat])
        return jax.lax.scan(body, carry, (nnx.to_pure_dict(state), per_layer))


def require_remat(name: str) -> None:
    """Raise `ValueError` naming the known ones unless `name` is one of `REMATS`."""
    if name not in REMATS:
        raise ValueError(f"remat {name!r} is not known; there is: {', '.join(REMATS)}")


def causal_mask(positions: Int[Array, "B T"], num_keys: int) -> Bool[Array, "B 1 T S"]:
    """True where a key's index is not past the query's position."""
    return (jnp.arange(num_keys) <= positions[..., None])[:, None]
