"""The menu: a config names a quantizer, and this makes it or says what does not go together."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import nnx

from tokenizer.quantizers.bits import BitsConfig
from tokenizer.quantizers.bsq import BSQ
from tokenizer.quantizers.codebook import CodebookConfig
from tokenizer.quantizers.contract import Quantizer, unit
from tokenizer.quantizers.fsq import FSQ
from tokenizer.quantizers.ibq import IBQ
from tokenizer.quantizers.lfq import LFQ
from tokenizer.quantizers.product import Product
from tokenizer.quantizers.residual import Residual
from tokenizer.quantizers.vq import VQ

PARTS = ("fsq", "vq", "ibq", "lfq", "bsq")
NAMES = (*PARTS, "product", "residual")


@dataclasses.dataclass(frozen=True)
class QuantizerConfig:
    """`num_codes` codes a position: bits side by side for `lfq` and `bsq`, groups of channels for
    `product`, stages for `residual`; the last two are made of `part`. `fsq`, `vq` and `ibq` have
    one.

    `levels` are those of one FSQ code, `codebook` is for `vq` and `ibq`, `bits` for `lfq` and
    `bsq`. Raises `ValueError` for unknown names and for what does not go together.
    """

    name: str = "product"
    levels: tuple[int, ...] = (8,)
    num_codes: int = 48
    part: str = "fsq"
    codebook: CodebookConfig = dataclasses.field(default_factory=CodebookConfig)
    bits: BitsConfig = dataclasses.field(default_factory=BitsConfig)

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"quantizer {self.name!r} is not known; there are: {', '.join(NAMES)}")
        if self.part not in PARTS:
            raise ValueError(
                f"quantizer.part {self.part!r} is not known; there are: {', '.join(PARTS)}"
            )
        if self.num_codes < 1:
            raise ValueError(f"quantizer.num_codes {self.num_codes} must be at least 1")
        if self.name in ("fsq", "vq", "ibq") and self.num_codes != 1:
            raise ValueError(
                f"quantizer.num_codes is {self.num_codes}, but {self.name} has one a position; "
                f"set it to 1, or name product or residual with part {self.name}"
            )
        kind, codebook = self.kind, self.codebook
        if self.name == "residual" and kind in ("vq", "ibq") and codebook.cosine:
            raise ValueError(
                "quantizer.codebook.cosine leaves later stages of a residual no lengths to say; "
                "set it False"
            )
        if kind == "ibq" and (codebook.learning != "gradient" or codebook.rotation):
            raise ValueError(
                "quantizer.codebook.learning and rotation are vq's; "
                "ibq needs learning gradient and rotation False"
            )
        if kind != "ibq" and codebook.entropy:
            raise ValueError(
                "quantizer.codebook.entropy is ibq's alone; set it to 0, "
                "or use restart_below to keep the codes of a vq in use"
            )

    @property
    def kind(self) -> str:
        """What one code is, whatever repeats it."""
        return self.part if self.name in ("product", "residual") else self.name


def make_quantizer(config: QuantizerConfig, *, rngs: nnx.Rngs) -> Quantizer:
    """The quantizer a config names."""
    match config.name:
        case "product":
            # an FSQ has neither arrays nor a loss, so that one serves all groups at once
            count = 1 if config.part == "fsq" else config.num_codes
            return Product([_one(config, rngs=rngs) for _ in range(count)], config.num_codes)
        case "residual":
            return _residual(config, rngs=rngs)
        case "lfq":
            return LFQ(config.bits, config.num_codes)
        case "bsq":
            return BSQ(config.bits, config.num_codes)
    return _one(config, rngs=rngs)


def _one(config: QuantizerConfig, *, rngs: nnx.Rngs) -> Quantizer:
    match config.kind:
        case "fsq":
            return FSQ(tuple(config.levels))
        case "vq":
            return VQ(config.codebook, rngs=rngs)
        case "ibq":
            return IBQ(config.codebook, rngs=rngs)
        case "lfq":
            return LFQ(config.bits, 1)
    return BSQ(config.bits, 1)


def _residual(config: QuantizerConfig, *, rngs: nnx.Rngs) -> Residual:
    """Parts and scales that fit: a stage's range is the error of the stage before it."""
    stages = range(config.num_codes)
    match config.kind:
        case "fsq":
            levels = tuple(config.levels)
            scales = [tuple((n - 1.0) ** -i for n in levels) for i in stages]
            return Residual([FSQ(levels, bounded=True) for _ in stages], scales, bound=jnp.tanh)
        case "lfq" | "bsq":
            # a commitment to the first signs would leave the later ones nothing to say
            bits = dataclasses.replace(config.bits, commitment=0.0)
            if config.kind == "bsq":
                return Residual(
                    [BSQ(bits, 1) for _ in stages], [2.0**-i for i in stages], bound=unit
                )
            scales = [2.0 ** -(i + 1) for i in stages]
            return Residual([LFQ(bits, 1) for _ in stages], scales, bound=jnp.tanh)
    return Residual([_one(config, rngs=rngs) for _ in stages], [1.0 for _ in stages])
