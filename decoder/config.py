"""What a decoder is: its sizes, what it is told, in which order it prints and how it reads a
code."""

from __future__ import annotations

import dataclasses

from decoder.conditioning import CAPTION_FEATURES, REGION_FEATURES, ConditioningConfig
from layers.block import BlockConfig, require_remat

_CHOICES = {
    "objective": ("masked", "causal", "random"),
    "head": ("factorised", "depth"),
    "positions": ("grid", "line"),
}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """`num_codes` and `codebook_size` are the tokenizer's.

    `objective`: `masked` sees all codes that are not hidden. `causal` sees those before, in raster
    order, and so prints one position after another. `random` sees those before in any order, and
    prints in any order as many at once as one likes: the stream of codes, causal in that order, has
    beside it one of queries, each a token as `masked` has for a hidden code at its own place, which
    looks at the codes before it and at no other query (the two streams of XLNet, Yang et al. 2019,
    section 2.3, in every layer; ARPG, arXiv 2503.10568, has the queries in its later layers only).
    A token so has one place, where it stands on the page, and codes never look at a query. RandAR
    (arXiv 2412.01827) feeds as many tokens, each code after an instruction that later ones do see.

    `head`: `factorised` gives all codes of a position at once, each from its own matrix; `depth`
    one after another by a small transformer of the sizes `depth_blocks`
    (`decoder.depth`).

    `ordered` says that a code is one scalar's level (FSQ of one channel), so that near codes mean
    near values: the head then predicts a level for each code beside the free logits.

    `dropout` is the share of each residual update that training zeroes; `remat` a name of
    `layers.block.REMATS` or `auto`; `rope_theta` the base of the rotary frequencies.

    `num_classes` above 0 makes a causal decoder of classes instead of blueprints, in the shape of
    LlamaGen's GPT (Sun et al. 2024): the class's vector, unrotated, stands before the codes, each
    code is where it stands on the page, and nothing of the conditioning exists. `caption_width`
    above 0 makes one of captions in the same way: `num_caption_tokens` features of that width
    (`decoder.captions`), unrotated. `positions` are then `grid`, rows and columns, or `line`, the
    place in raster order from 1 on, as a language model has it.
    `zero_prefix_rotation` gives what stands before the codes cosines and sines of zero, so that it
    is attended to blindly, each token alike: LlamaGen's defect (issue 54), only for its weights.
    """

    blocks: BlockConfig
    num_codes: int
    codebook_size: int
    conditioning: ConditioningConfig
    objective: str = "masked"
    head: str = "factorised"
    depth_blocks: BlockConfig = BlockConfig(  # noqa: RUF009  # a frozen value
        width=32, num_layers=1, num_heads=2, num_kv_heads=2, head_size=16, hidden=64
    )
    ordered: bool = False
    dropout: float = 0.0
    remat: str = "none"
    rope_theta: float = 100.0
    num_classes: int = 0
    zero_prefix_rotation: bool = False
    caption_width: int = 0
    num_caption_tokens: int = 120
    positions: str = "grid"

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                named = f"{name} {getattr(self, name)!r}"
                raise ValueError(f"{named} is not known; there is: {', '.join(known)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is not a share from 0 to below 1")
        require_remat(self.remat)
        for name in ("num_classes", "caption_width", "zero_prefix_rotation"):
            if getattr(self, name) and not self.causal:
                raise ValueError(f"{name} {getattr(self, name)} needs objective 'causal'")
        if self.num_classes and self.caption_width:
            raise ValueError("num_classes and caption_width exclude each other: set one to 0")
        if self.caption_width and self.num_caption_tokens < 1:
            raise ValueError(f"num_caption_tokens {self.num_caption_tokens} is below 1")
        if self.positions == "line" and self.has_blueprint:
            raise ValueError("positions 'line' puts letters nowhere: a blueprint needs 'grid'")

    @property
    def causal(self) -> bool:
        """Whether codes see only those before."""
        return self.objective == "causal"

    @property
    def has_blueprint(self) -> bool:
        """Whether it is told a blueprint, and neither a class nor a caption."""
        return not (self.num_classes or self.caption_width)

    @property
    def copies(self) -> bool:
        """Whether canonical codes are looked at, and copied from."""
        return self.conditioning.glyphs == "encoded" and self.has_blueprint

    @property
    def region_width(self) -> int:
        """Features of a code position's regions, ground and caption."""
        return 3 + self.conditioning.slots * REGION_FEATURES + CAPTION_FEATURES
