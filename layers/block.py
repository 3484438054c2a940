"""The pre-norm transformer block and the stack of them that a scan runs."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from layers.attention import Attention, Cache, LayerCache, Storage
from layers.axes import constrain
from layers.einsum import PRODUCT
from layers.masks import Mask
from layers.mlp import SwiGLU
from layers.native import step as native
from layers.norm import RMSNorm
from layers.splash import SAVED

_POLICIES = jax.checkpoint_policies
_OFFLOADED = _POLICIES.save_and_offload_only_these_names(
    names_which_can_be_saved=[], names_which_can_be_offloaded=[PRODUCT],
    offload_src="device", offload_dst="pinned_host",
)  # fmt: skip


def _products(primitive: Any, *arrays: Any, **options: Any) -> bool:
    """Whether a value is a product of weights, or what a fused attention's backward pass reads of
    its forward one: Splash gives that a name, cuDNN has a primitive of its own."""
    named = _POLICIES.save_only_these_names(PRODUCT, SAVED)(primitive, *arrays, **options)
    return bool(named) or primitive.name.startswith("dot_product_attention_fwd")


def _all_products(primitive: Any, *arrays: Any, **options: Any) -> bool:
    scores = _POLICIES.dots_saveable(primitive, *arrays, **options)
    return bool(scores) or _products(primitive, *arrays, **options)


REMATS = {
    "none": None,
    "full": _POLICIES.nothing_saveable,
    "dots": _products,
    "all_dots": _all_products,
    "offload": _OFFLOADED,
}
"""What the backward pass of a stack keeps by name, beside each layer's input: `none` makes nothing
again, `full` everything. `dots` keeps what the weights' products gave and what a fused attention
would have to run for again (scores of the plain one are made again); `all_dots` those scores too.
`offload` keeps the weights' products in the host's memory. Besides, `auto` is what `use_remat` says
around it."""
_AUTO: contextvars.ContextVar[str] = contextvars.ContextVar("remat", default="none")
_UNROLL: contextvars.ContextVar[bool] = contextvars.ContextVar("unroll", default=False)


@contextlib.contextmanager
def use_remat(name: str, *, unroll: bool = False) -> Iterator[None]:
    """Make a stack whose remat is `auto` keep what this of `REMATS` says, if it is traced inside
    the block; raises `ValueError` for an unknown one, `auto` too. With `unroll` its layers are
    written one after another and no loop over them: a longer program, without the copies that a
    loop makes of each layer's weights and of what it keeps."""
    if name == "auto":
        raise ValueError(f"remat 'auto' is nothing to use; there is: {', '.join(REMATS)}")
    require_remat(name)
    tokens = _AUTO.set(name), _UNROLL.set(unroll)
    try:
        yield
    finally:
        _AUTO.reset(tokens[0])
        _UNROLL.reset(tokens[1])


DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """The sizes of a transformer trunk, named as in the alphabet's table.

    A `depth` above 0 is the one dial of a family of trunks, as in nanochat, and takes the place of
    the sizes: so many layers, as many heads of 64 (one more if that is odd), two of them to a
    kv head, and a SwiGLU of 8/3 of the width. It is 0 again once the sizes are known, so that two
    configs of the same sizes are equal. Millions of parameters:

        depth               4      8      12     20     26
        width               256    512    768    1280   1664
        trunk               3.0    23.6   77.9   363.8  797.5
        our planner         3.3    24.3   78.9   365.5  799.7

    `norm_eps` is what every RMSNorm adds to the mean square: 1e-5 in Llama and in LlamaGen, 1e-6 in
    Qwen3.

    `dtype` is that of the trunk's activations, and of its cache unless that is told another.
    Parameters stay float32, and so do the statistics of norms, rotations, softmax, and what the
    trunk returns.
    """

    width: int = 0
    num_layers: int = 0
    num_heads: int = 0
    num_kv_heads: int = 0
    head_size: int = 0
    hidden: int = 0
    qk_norm: bool = False
    dtype: str = "float32"
    depth: int = 0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.depth:
            for name, size in _dial(self.depth).items():
                object.__setattr__(self, name, size)
        missing = [name for name in _dial(1) if name != "depth" and getattr(self, name) < 1]
        if missing:
            raise ValueError(f"blocks have no {', '.join(missing)}: give all sizes, or depth alone")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")

    @property
    def sizes(self) -> dict[str, int]:
        """Letter -> size, for `Einsum`."""
        heads = {"N": self.num_heads, "K": self.num_kv_heads, "H": self.head_size}
        return {"D": self.width, "F": self.hidden, **heads}

    def empty_cache(
        self,
        num_rows: int,
        num_positions: int,
        storage: Storage = Storage(),  # noqa: B008  # a frozen value
    ) -> Cache:
        """Zeros for the keys and values of every layer."""
        num_positions += storage.spare
        shape = (num_rows, self.num_kv_heads, num_positions, self.head_size)
        dtype = storage.dtype or self.dtype
        return tuple(LayerCache.empty(shape, dtype) for _ in range(self.num_layers))


def _dial(depth: int) -> dict[str, int]:
    """The sizes of a trunk of so many layers; raises `ValueError` for fewer than one."""
    if depth < 1:
        raise ValueError(f"depth {depth} is not a number of layers; 0 leaves it to the sizes")
    heads = depth + depth % 2
    width = 64 * heads
    return {
        "width": width, "num_layers": depth, "num_heads": heads, "num_kv_heads": heads // 2,
        "head_size": 64, "hidden": -(-8 * width // 3 // 64) * 64, "depth": 0,
    }  # fmt: skip


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
        eps = config.norm_eps
        self.attention_norm = RMSNorm(config.width, eps=eps)
        self.attention = Attention(
            config.sizes, rngs=rngs, qk_norm=config.qk_norm, scale=scale, eps=eps
        )
        self.mlp_norm = RMSNorm(config.width, eps=eps)
        self.mlp = SwiGLU(config.sizes, rngs=rngs, scale=scale)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        rotations: tuple[Array, Array],
        mask: Mask | Bool[Array, "#B 1 #T S"],
        *,
        cache: LayerCache | None = None,
        at: Int[Array, " B"] | Int[Array, ""] | None = None,
        dropout: Dropout | None = None,
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """One layer; see `Attention` for the mask and the cache. Without `dropout` nothing is
        random. With its kernels as panels (`native.packed`) it is for few tokens and a cache."""
        if native.is_packed(self):
            assert cache is not None and at is not None and dropout is None
            return native.step(self, x, rotations, mask, cache, at)
        update, cache = self.attention(self.attention_norm(x), rotations, mask, cache=cache, at=at)
        x = constrain(x + (update if dropout is None else dropout(update, 0)), "BTD")
        update = self.mlp(self.mlp_norm(x))
        return constrain(x + (update if dropout is None else dropout(update, 1)), "BTD"), cache


Layers = tuple[Any, ...]


class Stack(nnx.Module):
    """L layers of one shape, their arrays stacked on a leading axis and run by `jax.lax.scan`.

    Between the layers the carry has the stack's `dtype` (its own if that is None), before and after
    them its own.
    """

    def __init__(
        self,
        make: Callable[[nnx.Rngs], nnx.Module],
        num_layers: int,
        *,
        rngs: nnx.Rngs,
        dtype: str | None = None,
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
        self.dtype = dtype

    def scan(
        self,
        step: Callable[..., tuple[Any, Any]],
        carry: Any,
        per_layer: Any = None,
        *,
        remat: str = "none",
    ) -> tuple[Any, Any]:
        """Fold `step(layer, carry, item) -> (carry, item)` over the layers in order.

        `remat` is one of `REMATS` or `auto`: gradients stay the same, memory is paid for with time.
        Raises `ValueError` for another.
        """
        require_remat(remat)
        remat = _AUTO.get() if remat == "auto" else remat
        graphdef, state = nnx.split(self.layer)

        def body(carry: Any, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
            arrays, item = inputs
            return step(nnx.merge(graphdef, arrays), carry, item)

        unroll = _UNROLL.get()
        if remat != "none":  # inside a loop nothing merges the two passes, so CSE is no danger
            body = jax.checkpoint(body, prevent_cse=unroll, policy=REMATS[remat])
        within = jax.tree.map(lambda x: x.astype(self.dtype or x.dtype), carry)
        layers = nnx.to_pure_dict(state), per_layer
        within, items = jax.lax.scan(body, within, layers, unroll=unroll)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), within, carry), items

    def unstacked(self) -> Layers:
        """Each layer's arrays by themselves, for `fold`: made once, before a loop over tokens."""
        stacked = nnx.to_pure_dict(nnx.state(self.layer))
        return tuple(jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(self.num_layers))

    def fold(
        self,
        step: Callable[..., tuple[Any, Any]],
        carry: Any,
        per_layer: Sequence[Any],
        *,
        layers: Layers | None = None,
    ) -> tuple[Any, tuple[Any, ...]]:
        """What `scan` gives, layer after layer as the program has them: for few tokens, of which a
        scan would copy every layer's weights, and its cache there and back."""
        graphdef, items = nnx.graphdef(self.layer), []
        within = jax.tree.map(lambda x: x.astype(self.dtype or x.dtype), carry)
        for arrays, item in zip(layers or self.unstacked(), per_layer, strict=True):
            within, item = step(nnx.merge(graphdef, arrays), within, item)
            items.append(item)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), within, carry), tuple(items)


def require_remat(name: str) -> None:
    """Raise `ValueError` naming the known ones unless `name` is `auto` or one of `REMATS`."""
    if name != "auto" and name not in REMATS:
        raise ValueError(f"remat {name!r} is not known; there is: {', '.join(REMATS)}, auto")


def causal_mask(positions: Int[Array, "B T"], num_keys: int) -> Bool[Array, "B 1 T S"]:
    """True where a key's index is not past the query's position."""
    return (jnp.arange(num_keys) <= positions[..., None])[:, None]
