"""The visual decoder: a blueprint's conditioning and codes, partly masked or those before, to
logits of every code."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Integer

from decoder.conditioning import (
    CAPTION_FEATURES,
    CHARACTER_FEATURES,
    REGION_FEATURES,
    ConditioningConfig,
)
from decoder.sight import raster, sight
from layers.attention import LayerCache
from layers.axes import constrain
from layers.block import Block, BlockConfig, Dropout, Stack, require_remat
from layers.einsum import Einsum
from layers.embedding import Embed
from layers.norm import RMSNorm
from layers.rope import rotations

COPY_BIAS = 2.0  # in nats: what a fresh decoder gives the canonical page's code over any other
SHARPNESS = 25.0  # 1 / variance around a predicted level, where levels reach from -1 to 1
OBJECTIVES = ("masked", "causal")
BY_POSITION = ("regions", "glyphs", "glyph_codes")  # the conditions that a code position has


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """`num_codes` and `codebook_size` are the tokenizer's.

    `objective`: `masked` sees all codes that are not hidden; `causal` sees those before, in raster
    order, and so prints one position after another. All codes of a position come at once, each
    from its own head.

    `ordered` says that a code is one scalar's level (FSQ of one channel), so that near codes mean
    near values: the head then predicts a level for each code beside the free logits.

    `dropout` is the share of each residual update that training zeroes; `remat` a name of
    `layers.block.REMATS`; `rope_theta` the base of the rotary frequencies.

    `num_classes` above 0 makes a causal decoder of classes instead of blueprints, in the shape of
    LlamaGen's GPT (Sun et al. 2024): the class's vector, unrotated, stands before the codes, each
    code is where it stands on the page, and nothing of the conditioning exists.
    `zero_prefix_rotation` gives what stands before the codes cosines and sines of zero, so that it
    is attended to blindly, each token alike: LlamaGen's defect (issue 54), only for its weights.
    """

    blocks: BlockConfig
    num_codes: int
    codebook_size: int
    conditioning: ConditioningConfig
    objective: str = "masked"
    ordered: bool = False
    dropout: float = 0.0
    remat: str = "none"
    rope_theta: float = 100.0
    num_classes: int = 0
    zero_prefix_rotation: bool = False

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            known = ", ".join(OBJECTIVES)
            raise ValueError(f"objective {self.objective!r} is not known; there is: {known}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is not a share from 0 to below 1")
        require_remat(self.remat)
        for name in ("num_classes", "zero_prefix_rotation"):
            if getattr(self, name) and not self.causal:
                raise ValueError(f"{name} {getattr(self, name)} needs objective 'causal'")

    @property
    def causal(self) -> bool:
        """Whether codes see only those before."""
        return self.objective == "causal"

    @property
    def copies(self) -> bool:
        """Whether canonical codes are looked at, and copied from."""
        return self.conditioning.glyphs == "encoded" and not self.num_classes

    @property
    def region_width(self) -> int:
        """Features of a code position's regions, ground and caption."""
        return 3 + self.conditioning.slots * REGION_FEATURES + CAPTION_FEATURES


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sheet:
    """Pages being printed code by code: keys and values of letters and codes so far, how each
    token is turned, whom it may look at, and the conditions with their positions in raster
    order."""

    cache: LayerCache
    turn: tuple[Float[Array, "B T 1 P"], Float[Array, "B T 1 P"]]
    mask: Bool[Array, "#B 1 #T T"]
    told: dict[str, Array]


class Decoder(nnx.Module):
    """Over letters and code positions, which share one 2D coordinate system: bidirectional, or
    causal over the codes. One forward trains (`cache=None`) and prints."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        width, Q, V = config.blocks.width, config.num_codes, config.codebook_size
        sizes = {"D": width, "Q": Q, "V": V}
        self.codes_in = Einsum("BTQV,QVD->BTD", sizes, rngs=rngs)
        if config.num_classes:
            self.classes_in = Embed(config.num_classes + 1, width, rngs=rngs)
        else:
            self._make_conditioning(rngs)
        make = lambda r: Block(config.blocks, rngs=r)  # noqa: E731
        self.blocks = Stack(make, config.blocks.num_layers, rngs=rngs, dtype=config.blocks.dtype)
        self.norm = RMSNorm(width)
        self.head = Einsum("BTD,DQV->BTQV", sizes, rngs=rngs, scale=0.1)
        if config.ordered:
            self.level_head = Einsum("BTD,DQ->BTQ", sizes, rngs=rngs, scale=0.1)
            self.log_sharpness = nnx.Param(jnp.full((Q,), math.log(SHARPNESS)), axes="Q", summed="")

    def _make_conditioning(self, rngs: nnx.Rngs) -> None:
        config = self.config
        width, Q = config.blocks.width, config.num_codes
        window = (2 * config.conditioning.downsampling) ** 2
        sizes = {"D": width, "Q": Q, "V": config.codebook_size}

        def project(features: int) -> Einsum:
            return Einsum("BTI,ID->BTD", {"I": features, "D": width}, rngs=rngs)

        self.mask_vector = nnx.Param(jnp.zeros((width,)), axes="D", summed="")
        self.regions_in = project(config.region_width)
        self.glyphs_in = project(window)
        self.copies_in = Einsum("BTQV,QVD->BTD", sizes, rngs=rngs)
        self.copy_gate = Einsum("BTD,DQ->BTQ", sizes, rngs=rngs, scale=0.1)
        self.copy_bias = nnx.Param(jnp.full((Q,), COPY_BIAS), axes="Q", summed="")
        self.letters_in = Embed(257, width, rngs=rngs, scale=0.5)
        self.styles_in = project(CHARACTER_FEATURES)
        self.mixed_norm = RMSNorm(width)
        hidden = {"D": width, "F": 2 * width}
        self.mix_up = Einsum("BTD,DF->BTF", hidden, rngs=rngs)
        self.mix_down = Einsum("BTF,FD->BTD", hidden, rngs=rngs, scale=0.5)

    def __call__(
        self,
        codes: Int[Array, "B y x Q"],
        masked: Bool[Array, "B y x"],
        conditions: Mapping[str, Array],
        *,
        key: Array | None = None,
    ) -> Float[Array, "B y x Q V"]:
        """Logits for every position; what `codes` holds where `masked` is True is never seen.

        A causal decoder sees at a position every code before it, masked or not, and no other. `key`
        is for dropout; without it there is none.
        """
        B, y, x, Q = codes.shape
        told = self._flat(conditions, y * x)
        seen = self._codes(codes.reshape(B, y * x, Q))
        if self.config.causal:
            page = jnp.concatenate([self._start(told, B), seen[:, :-1]], axis=1)
        else:
            page = jnp.where(masked.reshape(B, y * x, 1), self.mask_vector[...], seen)
        tokens = self._page(page, told)
        if not self.config.num_classes:
            tokens = self._mixed(jnp.concatenate([self._letters(told), tokens], axis=1))
        turn, mask = self._turn(told, B, (y, x)), self._sight(told, (y, x))
        tokens, _ = self._through(tokens, turn, mask, key=key)
        return self._logits(self.norm(tokens[:, -y * x :]), told).reshape(B, y, x, Q, -1)

    def prefill(self, codes: Int[Array, "B y x Q"], conditions: Mapping[str, Array]) -> Sheet:
        """A causal decoder's blank sheet, its letters read. Only the shape of `codes` is used."""
        B, y, x, _ = codes.shape
        told = self._flat(conditions, y * x)
        turn, mask = self._turn(told, B, (y, x)), self._sight(told, (y, x))
        num_tokens = mask.shape[-1]
        cache = self.config.blocks.empty_cache(B, num_tokens)
        prefix = num_tokens - y * x
        if prefix:
            letters = self._mixed(self._letters(told))
            first = tuple(part[:, :prefix] for part in turn)
            at = jnp.zeros((B,), jnp.int32)
            _, cache = self._through(letters, first, mask[:, :, :prefix], cache=cache, at=at)
        return Sheet(cache, turn, mask, told)

    def step(
        self, at: Int[Array, ""], before: Int[Array, "B Q"], sheet: Sheet
    ) -> tuple[Float[Array, "B Q V"], Sheet]:
        """Logits of the position `at` in raster order and the sheet with it; `before` are the codes
        of the position before, which are not looked at when there is none.

        Steps are to be taken in order, since each fills in its own part of the cache.
        """
        B = before.shape[0]
        prefix = 0 if self.config.num_classes else sheet.told["letters"].shape[1]
        here = lambda x, i, axis=1: jax.lax.dynamic_slice_in_dim(x, i, 1, axis)  # noqa: E731
        told = {n: here(x, at) if n in BY_POSITION else x for n, x in sheet.told.items()}
        page = jnp.where(at == 0, self._start(told, B), self._codes(before[:, None]))
        tokens = self._page(page, told)
        tokens = tokens if self.config.num_classes else self._mixed(tokens)
        turn = tuple(here(part, prefix + at) for part in sheet.turn)
        mask = here(sheet.mask, prefix + at, 2)
        index = jnp.full((B,), prefix + at, jnp.int32)
        tokens, cache = self._through(tokens, turn, mask, cache=sheet.cache, at=index)
        logits = self._logits(self.norm(tokens), told)[:, 0]
        return logits, dataclasses.replace(sheet, cache=cache)

    def _flat(self, conditions: Mapping[str, Array], num_positions: int) -> dict[str, Array]:
        """The conditions with their positions in raster order."""
        return {
            name: array.reshape(array.shape[0], num_positions, -1) if name in BY_POSITION else array
            for name, array in conditions.items()
        }

    def _codes(self, codes: Int[Array, "B T Q"]) -> Float[Array, "B T D"]:
        return self.codes_in(self._one_hot(codes)) * self.config.num_codes**0.5

    def _one_hot(self, codes: Integer[Array, "B T Q"]) -> Float[Array, "B T Q V"]:
        return jax.nn.one_hot(codes, self.config.codebook_size)

    def _start(self, told: Mapping[str, Array], num_rows: int) -> Float[Array, "B 1 D"]:
        """What stands where the first position would have the code before it."""
        if self.config.num_classes:
            return self.classes_in(told["classes"])[:, None]
        vector = self.mask_vector[...]
        return jnp.broadcast_to(vector, (num_rows, 1, *vector.shape))

    def _letters(self, told: Mapping[str, Array]) -> Float[Array, "B S D"]:
        return self.letters_in(told["letters"]) + self.styles_in(told["letter_styles"])

    def _page(
        self, seen: Float[Array, "B T D"], told: Mapping[str, Array]
    ) -> Float[Array, "B T D"]:
        """What is seen of the codes, and what is told of their positions beforehand."""
        if self.config.num_classes:
            return seen
        page = seen + self.regions_in(told["regions"])
        page = page + self.glyphs_in(told["glyphs"] / 127.5)
        if self.config.copies:
            copies = self.copies_in(self._one_hot(told["glyph_codes"]))
            page = page + copies * self.config.num_codes**0.5
        return page

    def _mixed(self, tokens: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return tokens + self.mix_down(jax.nn.silu(self.mix_up(self.mixed_norm(tokens))))

    def _turn(
        self, told: Mapping[str, Array], num_rows: int, grid: tuple[int, int]
    ) -> tuple[Float[Array, "B T 1 P"], Float[Array, "B T 1 P"]]:
        """Rotations of all tokens, at the places of letters and codes. Of a class decoder: none for
        the class, then for each token the place of the code that it is."""
        y, x = grid
        places = jnp.stack(jnp.mgrid[:y, :x], axis=-1).reshape(1, y * x, 2) + 1.5
        places = jnp.broadcast_to(places, (num_rows, y * x, 2))
        if self.config.num_classes:
            first, rest = jnp.zeros((num_rows, 1, 2)), places[:, :-1]
        else:
            first, rest = told["letter_places"], places
        places = jnp.concatenate([first, rest], axis=1)
        theta = self.config.rope_theta
        cos, sin = rotations(places, self.config.blocks.head_size, theta=theta)
        if self.config.zero_prefix_rotation:
            later = (jnp.arange(places.shape[1]) >= first.shape[1])[None, :, None, None]
            cos, sin = cos * later, sin * later
        return cos, sin

    def _sight(self, told: Mapping[str, Array], grid: tuple[int, int]) -> Bool[Array, "#B 1 #T T"]:
        if self.config.num_classes:
            return raster(grid[0] * grid[1])[None, None]
        locked = self.config.conditioning.lock_regions
        return sight(told, grid, causal=self.config.causal, locked=locked)

    def _through(
        self,
        tokens: Float[Array, "B T D"],
        turn: tuple[Array, Array],
        mask: Bool[Array, "#B 1 #T S"],
        *,
        cache: LayerCache | None = None,
        at: Int[Array, " B"] | None = None,
        key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """The layers over tokens, which a cache may join to earlier ones."""
        rate, num_layers = self.config.dropout, self.config.blocks.num_layers
        keys = None if key is None or not rate else jax.random.split(key, num_layers)

        def layer(block: Block, x: Array, item: tuple[Any, Any]) -> tuple[Array, Any]:
            kept, own = item
            dropout = None if own is None else Dropout(rate, own)
            return block(x, turn, mask, cache=kept, at=at, dropout=dropout)

        tokens = constrain(tokens, "BTD")
        return self.blocks.scan(layer, tokens, (cache, keys), remat=self.config.remat)

    def _logits(
        self, features: Float[Array, "B T D"], told: Mapping[str, Array]
    ) -> Float[Array, "B T Q V"]:
        """Free logits, plus a bonus for the canonical page's code, plus for ordered codes a
        parabola around a level that starts from the canonical one."""
        logits = self.head(features)
        level = jnp.zeros(logits.shape[:3])
        levels = jnp.linspace(-1.0, 1.0, self.config.codebook_size)
        if self.config.copies:
            copies = self._one_hot(told["glyph_codes"])
            gate = self.copy_gate(features) + self.copy_bias[...]
            logits = logits + gate[..., None] * copies
            level = jax.nn.sigmoid(gate) * (copies @ levels)
        if self.config.ordered:
            level = (level + self.level_head(features))[..., None]
            parabola = levels * level - levels * levels / 2
            logits = logits + jnp.exp(self.log_sharpness[...])[:, None] * parabola
        return logits
