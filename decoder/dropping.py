"""What is not told: conditions left out by row, in training and for classifier-free guidance (Ho &
Salimans 2022, section 3.2).

Left out, there is no letter, no ink, no canonical code: zeros. Regions become zeros but for the
kind `none` in every slot, which no page has (an empty slot is all zeros), so that its rows of
`regions_in` are the learnt vector of a page that is not told: were the whole token zeros, the
norms before the blocks would multiply its gradient by 1 / sqrt(eps) each. A class left out is the
last row of its table, a caption left out one that is not told.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool

from decoder.conditioning import no_regions

NO_CODE = -1  # its one-hot vector is zeros
NO_CLASS = -1  # the last row
_BLUEPRINT = {
    "regions": None, "letters": 0, "letter_styles": 0, "classes": NO_CLASS, "captioned": False,
}  # fmt: skip
_GLYPHS = {"glyphs": 0, "glyph_codes": NO_CODE}


def drop(
    conditions: Mapping[str, Array], *, blueprint: Bool[Array, " B"], glyphs: Bool[Array, " B"]
) -> dict[str, Array]:
    """The conditions without the blueprint (regions with their captions, letters, class or caption)
    in the rows where `blueprint`, without ink and canonical codes in those where `glyphs`."""
    told = dict(conditions)
    for names, gone in ((_BLUEPRINT, blueprint), (_GLYPHS, glyphs)):
        for name in names.keys() & told.keys():
            array = told[name]
            # uint8 codes have no room for "no code"
            array = array.astype(jnp.int32) if name == "glyph_codes" else array
            rows = gone.reshape(-1, *(1,) * (array.ndim - 1))
            blank = no_regions(array.shape[-1]) if name == "regions" else names[name]
            told[name] = jnp.where(rows, jnp.asarray(blank, array.dtype), array)
    return told
