"""Real open fonts from the package index, by class; some are kept from training.

Licences: Roboto and Caladea Apache-2.0; Source Sans/Serif Pro, Hanken Grotesk, Manrope, Fredoka One
and Amatic SC OFL-1.1; Intuitive OFL-1.1. Each package carries its own licence file.
"""

from __future__ import annotations

import dataclasses

import font_caladea
import font_fredoka_one
import font_hanken_grotesk
import font_intuitive
import font_source_sans_pro

from blueprint.typeset import CANONICAL_FACES, Face


@dataclasses.dataclass(frozen=True)
class Family:
    """A typeface and the class a blueprint knows it by."""

    name: str
    font_class: str
    face: Face
    heldout: bool = False


FAMILIES = (
    Family("Roboto", "sans", CANONICAL_FACES["sans"]),
    Family(
        "Source Sans Pro", "sans",
        Face.of(font_source_sans_pro, "SourceSansPro-Regular.ttf", "SourceSansPro-Bold.ttf", 1.08),
    ),
    Family(
        "Hanken Grotesk", "sans",
        Face.of(font_hanken_grotesk, "HankenGrotesk-Medium.otf", "HankenGrotesk-Bold.otf"),
        heldout=True,
    ),
    Family("Source Serif Pro", "serif", CANONICAL_FACES["serif"]),
    Family(
        "Caladea", "serif",
        Face.of(font_caladea, "Caladea-Regular.ttf", "Caladea-Bold.ttf", 1.05), heldout=True,
    ),
    Family("Manrope", "rounded", CANONICAL_FACES["rounded"]),
    Family(
        "Fredoka One", "rounded",
        Face.of(font_fredoka_one, "FredokaOne-Regular.ttf", "FredokaOne-Regular.ttf"),
    ),
    Family("Amatic SC", "script", CANONICAL_FACES["script"]),
    Family(
        "Intuitive", "script", Face.of(font_intuitive, "Intuitive.ttf", "Intuitive.ttf"),
        heldout=True,
    ),
)  # fmt: skip


def families(font_class: str, split: str) -> list[Family]:
    """A class's families for a split: training never sees the held-out ones, evaluation sees
    all."""
    return [
        f for f in FAMILIES if f.font_class == font_class and (split == "heldout" or not f.heldout)
    ]
