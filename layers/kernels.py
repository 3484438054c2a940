"""softmax(q k^T / sqrt(H)) v by the kernel that suits the device: XLA's own, cuDNN's flash
attention on a GPU, Splash attention on a TPU."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers import splash
from layers.axes import shard_map
from layers.masks import Mask, Packing
from layers.visible import visible

KERNELS = ("auto", "xla", "cudnn", "splash")
FEWEST = 128  # keys below which `auto` leaves a row to XLA: Splash's blocks are as long
_DEVICES = {"cudnn": "gpu", "splash": "tpu"}
_WIDE = ("H100", "H200", "GH200", "B100", "B200", "B300")  # where cuDNN takes heads of 256
_KERNEL: contextvars.ContextVar[str] = contextvars.ContextVar("attention_kernel", default="auto")

Query = Float[Array, "B T N H"]
Keys = Float[Array, "B S K H"]
Shape = jax.ShapeDtypeStruct


@contextlib.contextmanager
def use_kernel(name: str) -> Iterator[None]:
    """Make attention run by the kernel of that name inside the block: as sharding rules, a matter
    of the machine and not of the model. Raises `ValueError` for an unknown one."""
    if name not in KERNELS:
        raise ValueError(f"attention kernel {name!r} is not known; there is: {', '.join(KERNELS)}")
    token = _KERNEL.set(name)
    try:
        yield
    finally:
        _KERNEL.reset(token)


def target() -> tuple[str, str]:
    """Platform and kind of the device that is compiled for: that of the mesh, which need not be one
    of this machine, else the default one."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        device = jax.local_devices()[0]
    return device.platform, device.device_kind


def obstacle(
    name: str, query: Query | Shape, key: Keys | Shape, mask: Mask, device: tuple[str, str]
) -> str:
    """Why a kernel cannot serve, or "". Lengths and head sizes are padded and are none."""
    platform, kind = device
    if name == "xla":
        return ""
    if platform != _DEVICES[name]:
        return f"it is for a {_DEVICES[name]} and the device is {kind}"
    if name == "splash":
        return "the mask says each pair for itself" if mask.pairs is not None else ""
    if query.dtype not in (jnp.bfloat16, jnp.float16):
        return f"queries are {query.dtype} and it takes bfloat16 (blocks.dtype) and float16"
    most = 256 if any(wide in kind for wide in _WIDE) else 128
    if query.shape[-1] > most:
        return f"heads of {query.shape[-1]} are larger than {most}"
    T, S = query.shape[1], key.shape[1]
    tabled = not (mask.plain or _by_lengths(mask) or _after_prefix(mask, T, S))
    if tabled and (T % 2 or S % 2):
        return f"{T} queries and {S} keys under a table are not both even"
    return ""


def choose(query: Query | Shape, key: Keys | Shape, mask: Mask) -> str:
    """The kernel that runs. `auto` takes the device's own where it can serve and rows are not
    short; raises `ValueError` where one that was named cannot."""
    name, device = _KERNEL.get(), target()
    if name != "auto":
        if problem := obstacle(name, query, key, mask, device):
            raise ValueError(
                f"attention kernel {name!r} cannot serve here: {problem}; "
                "config.loop.attention='auto' falls back to 'xla'"
            )
        return name
    for name, platform in _DEVICES.items():
        long = key.shape[1] >= FEWEST
        if platform == device[0] and long and not obstacle(name, query, key, mask, device):
            return name
    return "xla"


def attend(query: Query, key: Keys, value: Keys, mask: Mask) -> Query:
    """What each query finds, by the kernel of the context. In `query`'s dtype; scores and softmax
    are float32."""
    kernel = choose(query, key, mask)
    if kernel == "xla":
        return by_xla(query, key, value, mask)
    run = by_cudnn if kernel == "cudnn" else splash.attend
    return shard_map(run, query, key, value, mask)


def by_xla(query: Query, key: Keys, value: Keys, mask: Mask) -> Query:
    """The plain one, which holds all scores in memory; XLA partitions it."""
    (B, T), S = query.shape[:2], key.shape[1]
    seen = jnp.broadcast_to(mask.dense(T, S), (B, 1, T, S))
    with visible(mask.causal and mask.pairs is None, num_keys=S, prefix=mask.prefix):
        return jax.nn.dot_product_attention(query, key, value, mask=seen, implementation="xla")


def _by_lengths(mask: Mask) -> bool:
    """Whether keys that are not there can be put last, so that a row has so many."""
    return mask.pairs is None and not mask.causal and mask.num_present is not None


def _after_prefix(mask: Mask, num_queries: int, num_keys: int) -> bool:
    """Whether all look at a prefix and, past it, at those before."""
    alone = mask.pairs is None and num_queries == num_keys
    return alone and mask.causal and 0 < mask.prefix < num_keys


def cudnn_arguments(
    query: Query, key: Keys, value: Keys, mask: Mask
) -> tuple[tuple[Array, Array, Array], dict]:
    """What `jax.nn.dot_product_attention` is given for cuDNN, which skips what a causal flag or a
    number of keys rules out and reads any other mask as a table."""
    (B, T), S = query.shape[:2], key.shape[1]
    if mask.plain:
        return (query, key, value), {"is_causal": mask.causal}
    if _by_lengths(mask):
        prefix, count = mask.prefix, mask.num_present
        assert count is not None
        key, value = (jnp.roll(x, -prefix, axis=1) for x in (key, value))
        return (query, key, value), {"key_value_seq_lengths": (S - prefix + count).astype("int32")}
    return (query, key, value), {"mask": jnp.broadcast_to(mask.dense(T, S), (B, 1, T, S))}


def by_cudnn(
    query: Query, key: Keys, value: Keys, mask: Mask, *, implementation: str = "cudnn"
) -> Query:
    """cuDNN's flash attention, heads padded with zeros to a multiple of 8; `implementation` is that
    of the calls, for tests."""
    H = query.shape[-1]
    query, key, value = (jnp.pad(x, [(0, 0)] * 3 + [(0, -H % 8)]) for x in (query, key, value))
    attention: Any = jax.nn.dot_product_attention
    run = functools.partial(attention, scale=H**-0.5, implementation=implementation)
    if _after_prefix(mask, query.shape[1], key.shape[1]):
        return causal_after_prefix(run, query, key, value, mask)[..., :H]
    arrays, options = cudnn_arguments(query, key, value, mask)
    return run(*arrays, **options)[..., :H]


def causal_after_prefix(
    run: Callable[..., Query], query: Query, key: Keys, value: Keys, mask: Mask
) -> Query:
    """A causal mask after a prefix as two calls without a table: the prefix by itself, and all of
    it causally, of which only what comes after the prefix is kept. Where keys are not there, tokens
    are packed for it, unless they are already.

    Two thirds of a table's time at the heads of LlamaGen-XL (docs/performance.md).
    """
    if mask.num_present is None:
        alone = run(*(x[:, : mask.prefix] for x in (query, key, value)))
        after = run(query, key, value, is_causal=True)
        return jnp.concatenate([alone, after[:, mask.prefix :]], axis=1)
    if not mask.packed:
        packing = Packing.of(mask, query.shape[1])
        query, key, value = (packing.pack(x) for x in (query, key, value))
        return packing.unpack(_packed(run, query, key, value, mask))
    return _packed(run, query, key, value, mask)


def _packed(run: Callable[..., Query], query: Query, key: Keys, value: Keys, mask: Mask) -> Query:
    """The same of packed tokens, where each row's prefix has its own length."""
    prefix, T = mask.prefix, query.shape[1]
    assert mask.num_present is not None
    count = mask.num_present.astype(jnp.int32)
    lengths = count + T - prefix
    causal = {"is_causal": True, "query_seq_lengths": lengths, "key_value_seq_lengths": lengths}
    after = run(query, key, value, **causal)
    # of an empty prefix, which nobody looks at, the first key is there: no mean of nothing
    first = (x[:, :prefix] for x in (query, key, value))
    alone = run(*first, key_value_seq_lengths=jnp.maximum(count, 1))
    inside = (jnp.arange(prefix) < count[:, None])[..., None, None]
    return jnp.concatenate([jnp.where(inside, alone, after[:, :prefix]), after[:, prefix:]], axis=1)


def packs(shape: tuple[int, int, int, int], dtype: Any, mask: Mask) -> bool:
    """Whether attention of queries [B T N H] over themselves is quicker of packed tokens: once for
    all layers, and not again in each."""
    like = Shape(shape, dtype)
    able = mask.num_present is not None and _after_prefix(mask, shape[1], shape[1])
    return able and not mask.packed and choose(like, like, mask) == "cudnn"
