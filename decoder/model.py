"""The visual decoder: a blueprint's conditioning and codes, partly masked or those before, to
logits of every code, or to codes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Integer

from decoder.captions import Captions, sight_of_captions
from decoder.conditioning import CHARACTER_FEATURES
from decoder.config import DecoderConfig
from decoder.depth import Depth, Pick
from decoder.sight import Order, raster, sight, sight_in_order
from decoder.trunk import Trunk
from layers.axes import constrain
from layers.einsum import Einsum
from layers.embedding import Embed, lookup
from layers.masks import Mask
from layers.native import step as native
from layers.native.rows import Panels, can_serve, products
from layers.norm import RMSNorm
from layers.rope import rotations

LARGE_CODEBOOK = 1024  # from so many codes on they are looked up and not multiplied
COPY_BIAS = 2.0  # in nats: what a fresh decoder gives the canonical page's code over any other
SHARPNESS = 25.0  # 1 / variance around a predicted level, where levels reach from -1 to 1
BY_POSITION = ("regions", "glyphs", "glyph_codes")  # the conditions that a code position has
_DEPTH_KEY = 1  # folded into a forward's key for the depth head, since the trunk has the key itself


class Decoder(nnx.Module):
    """Over letters and code positions, which share one 2D coordinate system: bidirectional, causal
    over the codes, or with queries beside them. One forward trains (`cache=None`) and prints; those
    that print with a cache are in `decoder.sheets` and `decoder.galleys`."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        width, Q, V = config.blocks.width, config.num_codes, config.codebook_size
        sizes = {"D": width, "Q": Q, "V": V}
        self.codes_in = Einsum("BTQV,QVD->BTD", sizes, rngs=rngs)
        if config.num_classes:
            self.classes_in = Embed(config.num_classes + 1, width, rngs=rngs)
        elif config.caption_width:
            shape = config.num_caption_tokens, config.caption_width
            self.captions_in = Captions(shape, width, rngs=rngs)
        else:
            self._make_conditioning(rngs)
        trained = {"dropout": config.dropout, "remat": config.remat}
        self.blocks = Trunk(config.blocks, **trained, rngs=rngs)
        self.norm = RMSNorm(width, eps=config.blocks.norm_eps)
        inputs, read = self._head_inputs()
        inner = config.blocks.dtype  # of the large products; what they read and give is float32
        self.head = Einsum(f"{inputs},DQV->BTQV", read, rngs=rngs, scale=0.1, inner=inner)
        if config.ordered:
            self.level_head = Einsum(f"{inputs},DQ->BTQ", read, rngs=rngs, scale=0.1)
            self.log_sharpness = nnx.Param(jnp.full((Q,), math.log(SHARPNESS)), axes="Q", summed="")
        deep = config.head == "depth"
        self.depth = Depth(config.depth_blocks, sizes, trained=trained, rngs=rngs) if deep else None

    def _head_inputs(self) -> tuple[str, dict[str, int]]:
        """What the heads read, in letters, and the sizes of these: a position's features, or those
        that the depth transformer makes of them for each code."""
        config = self.config
        deep = config.head == "depth"
        width = config.depth_blocks.width if deep else config.blocks.width
        sizes = {"D": width, "Q": config.num_codes, "V": config.codebook_size}
        return "BTQD" if deep else "BTD", sizes

    def _make_conditioning(self, rngs: nnx.Rngs) -> None:
        config = self.config
        width, Q = config.blocks.width, config.num_codes
        window = (2 * config.conditioning.downsampling) ** 2
        sizes = {"D": width, "Q": Q, "V": config.codebook_size}

        inner = config.blocks.dtype

        def project(features: int, **told: str) -> Einsum:
            return Einsum("BTI,ID->BTD", {"I": features, "D": width}, rngs=rngs, **told)

        self.mask_vector = nnx.Param(jnp.zeros((width,)), axes="D", summed="")
        self.regions_in = project(config.region_width)
        self.glyphs_in = project(window, inner=inner)
        self.copies_in = Einsum("BTQV,QVD->BTD", sizes, rngs=rngs)
        inputs, read = self._head_inputs()
        self.copy_gate = Einsum(f"{inputs},DQ->BTQ", read, rngs=rngs, scale=0.1)
        self.copy_bias = nnx.Param(jnp.full((Q,), COPY_BIAS), axes="Q", summed="")
        self.letters_in = Embed(257, width, rngs=rngs, scale=0.5)
        self.styles_in = project(CHARACTER_FEATURES)
        self.mixed_norm = RMSNorm(width)
        hidden = {"D": width, "F": 2 * width}
        self.mix_up = Einsum("BTD,DF->BTF", hidden, rngs=rngs, inner=inner)
        self.mix_down = Einsum("BTF,FD->BTD", hidden, rngs=rngs, scale=0.5, inner=inner)

    def __call__(
        self,
        codes: Int[Array, "B y x Q"],
        masked: Bool[Array, "B y x"],
        conditions: Mapping[str, Array],
        *,
        order: Order | None = None,
        key: Array | None = None,
    ) -> Float[Array, "B y x Q V"]:
        """Logits for every position. What `codes` holds where `masked` is True is seen by no
        position; only the depth head is told, for each code, those before it of the same position.

        A causal or random decoder does not look at `masked`: it sees at a position every code
        before it and no other, in raster order or, the random one, in that of `order`. `key` is for
        dropout; without it there is none.
        """
        features = self.features(codes, masked, conditions, order=order, key=key)
        told = self.flat(conditions, features.shape[1])
        if self.depth is not None:
            own = None if key is None else jax.random.fold_in(key, _DEPTH_KEY)
            features = self.depth(features, codes.reshape(*features.shape[:2], -1), key=own)
        return self._logits(features, told).reshape(*codes.shape, -1)

    def write(
        self,
        codes: Int[Array, "B y x Q"],
        masked: Bool[Array, "B y x"],
        conditions: Mapping[str, Array],
        pick: Pick,
        *,
        order: Order | None = None,
    ) -> tuple[Int[Array, "B y x Q"], Float[Array, "B y x Q V"]]:
        """Codes for every position, each position as the forward sees the others, and the logits
        that `pick` chose them from."""
        features = self.features(codes, masked, conditions, order=order)
        chosen, logits = self.choose(features, self.flat(conditions, features.shape[1]), pick)
        return chosen.reshape(codes.shape), logits.reshape(*codes.shape, -1)

    def features(
        self,
        codes: Int[Array, "B y x Q"],
        masked: Bool[Array, "B y x"],
        conditions: Mapping[str, Array],
        *,
        order: Order | None = None,
        key: Array | None = None,
    ) -> Float[Array, "B T D"]:
        """What the trunk makes of each position, for a head to read."""
        B, y, x, Q = codes.shape
        told = self.flat(conditions, y * x)
        seen = self.codes(codes.reshape(B, y * x, Q))
        if self.config.objective == "random":
            here = self.page(jnp.zeros_like(seen), told)
            page = jnp.concatenate([seen + here, self.blank + here], axis=1)
        elif self.config.causal:
            page = self.page(jnp.concatenate([self.start(told, B), seen[:, :-1]], axis=1), told)
        else:
            page = self.page(jnp.where(masked.reshape(B, y * x, 1), self.blank, seen), told)
        page = self.mixed(jnp.concatenate([*self.before(told), page], axis=1))
        cos, sin = self.turn(told, B, (y, x))
        if self.config.objective == "random":  # the queries stand where the codes do
            cos, sin = (jnp.concatenate([part, part[:, -y * x :]], axis=1) for part in (cos, sin))
        tokens = self.blocks(page, (cos, sin), self.mask(told, (y, x), order), key=key)
        return self.norm(tokens[:, -y * x :])

    def packed_head(self, num_rows: int) -> Panels | None:
        """The head in panels for so many rows, where `Trunk.packed` has panels too."""
        kernel = self.head.kernel[...]
        numbers = sum(x.size for x in jax.tree.leaves(kernel))
        if self.depth is None and can_serve(num_rows, numbers, self.config.blocks.dtype):
            return native.of(self.head)
        return None

    def choose(
        self,
        features: Float[Array, "B T D"],
        told: Mapping[str, Array],
        pick: Pick,
        *,
        head: Panels | None = None,
    ) -> tuple[Int[Array, "B T Q"], Float[Array, "B T Q V"]]:
        """Codes at the positions of these features, by `pick`, and the logits it chose from; of
        `told` only the positions' canonical codes are looked at. `head` is that of `packed_head`,
        if there is one."""
        if self.depth is None:
            logits = self._logits(features, told, head=head)
            return pick(logits), logits
        return self.depth.write(features, pick, lambda f, depth: self._logits(f, told, depth=depth))

    def flat(self, conditions: Mapping[str, Array], num_positions: int) -> dict[str, Array]:
        """The conditions with their positions in raster order."""
        return {
            name: array.reshape(array.shape[0], num_positions, -1) if name in BY_POSITION else array
            for name, array in conditions.items()
        }

    def codes(self, codes: Int[Array, "B T Q"]) -> Float[Array, "B T D"]:
        """What is seen of codes."""
        return constrain(self._looked_up(self.codes_in, codes), "BTD")

    def _looked_up(self, table: Einsum, codes: Integer[Array, "B T Q"]) -> Float[Array, "B T D"]:
        """The sum of the codes' vectors times sqrt(Q): by a product with their one-hots, or from a
        large codebook row by row."""
        Q, V = self.config.num_codes, self.config.codebook_size
        if V < LARGE_CODEBOOK:
            return table(self._one_hot(codes)) * Q**0.5
        rows = table.kernel[...].reshape(Q * V, -1)
        return lookup(rows, codes.astype(jnp.int32) + V * jnp.arange(Q)).sum(axis=2) * Q**0.5

    def _one_hot(self, codes: Integer[Array, "B T Q"]) -> Float[Array, "B T Q V"]:
        return constrain(jax.nn.one_hot(codes, self.config.codebook_size), "BTQV")

    @property
    def blank(self) -> Float[Array, " D"]:
        """What stands at a position whose code is not seen."""
        return self.mask_vector[...]

    def start(self, told: Mapping[str, Array], num_rows: int) -> Float[Array, "B 1 D"]:
        """What stands where the first position would have the code before it."""
        if self.config.num_classes:
            return self.classes_in(told["classes"])[:, None]
        if self.config.caption_width:
            return self.captions_in(told, slice(-1, None))
        return jnp.broadcast_to(self.blank, (num_rows, 1, *self.blank.shape))

    def letters(self, told: Mapping[str, Array]) -> Float[Array, "B S D"]:
        """The letters with their styles."""
        return self.letters_in(told["letters"]) + self.styles_in(told["letter_styles"])

    def num_before(self, told: Mapping[str, Array]) -> int:
        """How many tokens stand before the first of the page's own."""
        if self.config.has_blueprint:
            return told["letters"].shape[1]
        return max(self.config.num_caption_tokens - 1, 0) if self.config.caption_width else 0

    def before(self, told: Mapping[str, Array]) -> list[Float[Array, "B S D"]]:
        """These tokens, if there are some: letters, or all of a caption but its last."""
        if not self.num_before(told):
            return []
        if self.config.has_blueprint:
            return [self.letters(told)]
        return [self.captions_in(told, slice(0, -1))]

    def page(self, seen: Float[Array, "B T D"], told: Mapping[str, Array]) -> Float[Array, "B T D"]:
        """What is seen of the codes, and what is told of their positions beforehand."""
        if not self.config.has_blueprint:
            return seen
        page = seen + self.regions_in(told["regions"])
        page = page + self.glyphs_in(told["glyphs"] / 127.5)
        if self.config.copies:
            page = constrain(page + self._looked_up(self.copies_in, told["glyph_codes"]), "BTD")
        return page

    def mixed(self, tokens: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What was added up of a token, mixed before the blocks."""
        if not self.config.has_blueprint:
            return tokens
        return tokens + self.mix_down(jax.nn.silu(self.mix_up(self.mixed_norm(tokens))))

    def turn(
        self, told: Mapping[str, Array], num_rows: int, grid: tuple[int, int]
    ) -> tuple[Float[Array, "B T 1 P"], Float[Array, "B T 1 P"]]:
        """Rotations of all tokens, at the places of letters and codes. Of a decoder without a
        blueprint: none for class or caption, then for each token the place of the code that it
        is."""
        y, x = grid
        places = jnp.stack(jnp.mgrid[:y, :x], axis=-1).reshape(1, y * x, 2) + 1.5
        if self.config.positions == "line":
            places = jnp.arange(1.0, y * x + 1).reshape(1, y * x, 1)
        places = jnp.broadcast_to(places, (num_rows, *places.shape[1:]))
        if self.config.has_blueprint:
            first, rest = told["letter_places"], places
        else:
            nowhere = (num_rows, self.num_before(told) + 1, places.shape[-1])
            first, rest = jnp.zeros(nowhere), places[:, :-1]
        places = jnp.concatenate([first, rest], axis=1)
        theta = self.config.rope_theta
        cos, sin = rotations(places, self.config.blocks.head_size, theta=theta)
        if self.config.zero_prefix_rotation:
            later = (jnp.arange(places.shape[1]) >= first.shape[1])[None, :, None, None]
            cos, sin = cos * later, sin * later
        return cos, sin

    def sight(
        self, told: Mapping[str, Array], grid: tuple[int, int], order: Order | None = None
    ) -> Bool[Array, "#B 1 #T T"]:
        """Who may look at whom; without an order given codes come in raster order."""
        T, locked = grid[0] * grid[1], self.config.conditioning.lock_regions
        if self.config.num_classes:
            return raster(T)[None, None]
        if self.config.caption_width:
            there, num_places = told["caption_tokens"], self.config.num_caption_tokens
            return sight_of_captions(there, num_places=num_places, num_tokens=num_places - 1 + T)
        if self.config.objective == "random":
            rank = jnp.broadcast_to(jnp.arange(T), (told["letters"].shape[0], T))
            return sight_in_order(told, grid, order or Order(rank), locked=locked)
        return sight(told, grid, causal=self.config.causal, locked=locked)

    def mask(
        self, told: Mapping[str, Array], grid: tuple[int, int], order: Order | None = None
    ) -> Mask:
        """`sight` as attention kernels are told of it: in their own terms where it can be said in
        them."""
        if self.config.num_classes:
            return Mask(causal=True)
        locked = self.config.has_blueprint and self.config.conditioning.lock_regions
        if self.config.objective == "random" or locked or self.config.caption_width:
            return Mask(pairs=self.sight(told, grid, order))
        letters = told["letters"]
        there = (letters > 0).sum(axis=1)  # letters that are there come first
        return Mask(causal=self.config.causal, prefix=letters.shape[1], num_present=there)

    def _logits(
        self,
        features: Float[Array, "B T ... D"],
        told: Mapping[str, Array],
        *,
        depth: Int[Array, ""] | None = None,
        head: Panels | None = None,
    ) -> Float[Array, "B T Q V"]:
        """Free logits, plus a bonus for the canonical page's code, plus for ordered codes a
        parabola around a level that starts from the canonical one; at one depth if it is given."""

        def at(array: Array, axis: int) -> Array:
            return array if depth is None else jax.lax.dynamic_slice_in_dim(array, depth, 1, axis)

        def read(head: Einsum) -> Array:  # the letters of its kernel are D, then Q
            kernel = jax.tree.map(lambda array: at(array, 1), head.kernel[...])
            return head.product(features, kernel)

        logits = read(self.head) if head is None else products(features, [head])[0]
        level = jnp.zeros(logits.shape[:3])
        levels = jnp.linspace(-1.0, 1.0, self.config.codebook_size)
        if self.config.copies:
            copies = self._one_hot(at(told["glyph_codes"], 2))
            gate = read(self.copy_gate) + at(self.copy_bias[...], 0)
            logits = logits + gate[..., None] * copies
            level = jax.nn.sigmoid(gate) * (copies @ levels)
        if self.config.ordered:
            level = (level + read(self.level_head))[..., None]
            parabola = levels * level - levels * levels / 2
            logits = logits + jnp.exp(at(self.log_sharpness[...], 0))[:, None] * parabola
        return logits
