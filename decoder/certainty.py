"""Where a blueprint leaves nothing open: what the canonical page shows there is what will be
printed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Bool

from blueprint.schema import FONT_CLASSES
from decoder.conditioning import CAPTION_FEATURES, KINDS, REGION_FEATURES

PLAIN = ("none", "rectangle", "rounded", "line")
"""Kinds that a canonical page draws as they are. Every other leaves something open: a text its
typeface, a picture what it shows, a figure its form."""
_OUTLINE = len(KINDS) + len(FONT_CLASSES) + 1


def certain(told: Mapping[str, Array]) -> Bool[Array, "B y x"]:
    """True at a position of `regions` and `glyphs` with no canonical ink in its window, that only
    filled shapes of `PLAIN` kinds and the ground hold."""
    slots = told["regions"][..., 3:-CAPTION_FEATURES]
    slots = slots.reshape(*slots.shape[:-1], -1, REGION_FEATURES)
    open_kinds = np.array([KINDS.index(kind) for kind in KINDS if kind not in PLAIN])
    leaves_open = (slots[..., open_kinds] > 0).any(axis=-1) | (slots[..., _OUTLINE] > 0)
    return ~(leaves_open.any(axis=-1) | (told["glyphs"] > 0).any(axis=-1))
