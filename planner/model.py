"""The planner: a decoder-only transformer in the shape of Llama and Qwen3.

No biases, RMSNorm before each half, SwiGLU, grouped queries, rotary positions, an optional norm of
queries and keys, and a head that is the embedding (tied) or its own. `planner/weights.py` has its
names in their libraries.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from layers.attention import Cache
from layers.axes import constrain
from layers.block import Block, BlockConfig, Layers, Stack, causal_mask, require_remat
from layers.einsum import Einsum
from layers.embedding import Embed
from layers.masks import Mask
from layers.norm import RMSNorm
from layers.rope import RopeScaling, rotations


@dataclasses.dataclass(frozen=True)
class PlannerConfig:
    """`max_length` counts prompt and blueprint ids together.

    `prompt_vocab_size` above 0 is the vocabulary that prompts are read with (see
    `blueprint.reading`): its ids follow our own, its vectors are a table of its own, so that a
    pretrained one can be put there whole, and nothing is predicted over it. `remat` is a name of
    `layers.block.REMATS`, or `auto`.
    """

    blocks: BlockConfig
    vocab_size: int
    max_length: int
    rope_theta: float = 10000.0
    tie_embeddings: bool = True
    prompt_vocab_size: int = 0
    remat: str = "none"
    rope_scaling: RopeScaling = dataclasses.field(default_factory=RopeScaling)

    def __post_init__(self) -> None:
        require_remat(self.remat)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prediction:
    """Logits of the next id at each position, and the cache if one was given."""

    logits: Float[Array, "B T V"]
    cache: Cache | None


class Planner(nnx.Module):
    """Ids to logits. One forward trains (`cache=None`) and generates."""

    def __init__(self, config: PlannerConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        width = config.blocks.width
        self.embed = Embed(config.vocab_size, width, rngs=rngs)
        make = lambda r: Block(config.blocks, rngs=r)  # noqa: E731
        self.blocks = Stack(make, config.blocks.num_layers, rngs=rngs, dtype=config.blocks.dtype)
        self.norm = RMSNorm(width, eps=config.blocks.norm_eps)
        sizes = {"D": width, "V": config.vocab_size}
        own = functools.partial(Einsum, rngs=rngs, inner=config.blocks.dtype)
        self.head = None if config.tie_embeddings else own("BTD,DV->BTV", sizes)
        extra = config.prompt_vocab_size
        self.prompt_embed = Embed(extra, width, rngs=rngs) if extra else None

    def empty_cache(self, num_rows: int) -> Cache:
        """A cache for `max_length` positions of so many rows."""
        return self.config.blocks.empty_cache(num_rows, self.config.max_length)

    def _logits(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        inner = self.config.blocks.dtype
        return self.embed.attend(x, inner=inner) if self.head is None else self.head(x)

    def _vectors(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        if self.prompt_embed is None:
            return self.embed(ids)
        ours = self.config.vocab_size
        theirs = self.prompt_embed(jnp.maximum(ids - ours, 0))
        return jnp.where(ids[..., None] < ours, self.embed(jnp.minimum(ids, ours - 1)), theirs)

    def __call__(
        self,
        ids: Int[Array, "B T"],
        *,
        cache: Cache | None = None,
        at: Int[Array, " B"] | None = None,
        layers: Layers | None = None,
    ) -> Prediction:
        """`at` is each row's first position; without it rows start at 0. A loop over ids has the
        `layers` apart already (`Stack.unstacked`)."""
        B, T = ids.shape
        start = jnp.zeros((B,), jnp.int32) if at is None else at
        places = start[:, None] + jnp.arange(T)
        turn = rotations(
            places[..., None].astype(jnp.float32), self.config.blocks.head_size,
            theta=self.config.rope_theta, scaling=self.config.rope_scaling,
        )  # fmt: skip
        whole = Mask(causal=True)  # without a cache all rows start alike
        mask = whole if cache is None else causal_mask(places, self.config.max_length)
        x = constrain(self._vectors(ids), "BTD")
        if cache is None:
            layer = lambda block, x, _: block(x, turn, mask)  # noqa: E731
            x, _ = self.blocks.scan(layer, x, remat=self.config.remat)
        else:
            step = lambda block, x, kept: block(x, turn, mask, cache=kept, at=start)  # noqa: E731
            x, cache = self.blocks.fold(step, x, cache, layers=layers)
        x = self.norm(x)
        return Prediction(self._logits(x), cache)
