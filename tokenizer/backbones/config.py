"""What decides a backbone's shape, whichever it is."""

from __future__ import annotations

import dataclasses

BACKBONES = ("conv", "patch", "vit")


@dataclasses.dataclass(frozen=True)
class ConvConfig:
    """The convolutional backbone's own sizes; see `tokenizer/backbones/conv.py`.

    `multipliers` times the width are the channels of each level, full resolution first; one level
    fewer than there are halves the page. `attention_levels` count from 0 (full resolution) or from
    -1 (the lowest). `latent` channels come out of the convolutions, before one linear map makes
    them as wide as a code.
    """

    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    attention_levels: tuple[int, ...] = (-1,)
    middle_attention: bool = True
    latent: int = 256
    num_groups: int = 32

    def attends(self, level: int) -> bool:
        """Has this level (0 is full resolution) attention?"""
        from_below = level - len(self.multipliers)
        return level in self.attention_levels or from_below in self.attention_levels


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """The transformer backbone's own sizes; a head is `width / num_heads` channels."""

    num_heads: int = 4
    qk_norm: bool = True


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """`name` chooses; `downsampling` f is pixels a code position along each side.

    patch: `width` and `hidden` of a position's features, `num_blocks` MLPs a half.
    conv: `width` channels at full resolution, `num_blocks` residual blocks a level; no `hidden`.
    vit: `width` and `hidden` of the transformer, `num_blocks` layers a half.
    Raises `ValueError` naming the field and the remedy when the sizes do not fit together.
    """

    name: str = "patch"
    downsampling: int = 8
    width: int = 192
    hidden: int = 384
    num_blocks: int = 2
    channels: int = 3
    conv: ConvConfig = dataclasses.field(default_factory=ConvConfig)
    vit: ViTConfig = dataclasses.field(default_factory=ViTConfig)

    def __post_init__(self) -> None:
        if self.name not in BACKBONES:
            choices = ", ".join(BACKBONES)
            raise ValueError(f"backbone {self.name!r} is not known; there are: {choices}")
        if self.downsampling not in (4, 8, 16):
            raise ValueError(f"downsampling {self.downsampling} is not 4, 8 or 16")
        if self.name == "conv":
            self._check_conv()
        if self.name == "vit" and self.width % (4 * self.vit.num_heads):
            raise ValueError(
                f"width {self.width} is not a multiple of {4 * self.vit.num_heads}: each of "
                f"{self.vit.num_heads} heads turns pairs of channels by its row and by its column"
            )

    def _check_conv(self) -> None:
        num_levels = len(self.conv.multipliers)
        if 2 ** (num_levels - 1) != self.downsampling:
            raise ValueError(
                f"conv.multipliers {self.conv.multipliers} halve the page {num_levels - 1} times, "
                f"but downsampling is {self.downsampling}; give "
                f"{self.downsampling.bit_length()} multipliers"
            )
        for level in self.conv.attention_levels:
            if not -num_levels <= level < num_levels:
                raise ValueError(
                    f"conv.attention_levels has {level}; the levels are 0 to {num_levels - 1}"
                )
        if odd := [w for w in self.level_widths if w % self.conv.num_groups]:
            raise ValueError(
                f"{odd[0]} channels are not a multiple of conv.num_groups {self.conv.num_groups}; "
                "change width or conv.num_groups"
            )

    @property
    def level_widths(self) -> tuple[int, ...]:
        """Channels of each level of the convolutional backbone, full resolution first."""
        return tuple(self.width * times for times in self.conv.multipliers)


def require_whole(height_px: int, width_px: int, f: int) -> None:
    """Raises `ValueError` when a side of the page is not a multiple of f."""
    if height_px % f or width_px % f:
        raise ValueError(
            f"a page of {width_px} x {height_px} px cannot be cut into patches of {f} px; "
            f"crop or pad its sides to multiples of {f}"
        )
