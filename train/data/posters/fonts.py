"""Real open fonts from the package index, by class; some are kept from training.

Licences: Roboto and Caladea Apache-2.0; Source Sans/Serif Pro, Hanken Grotesk, Manrope, Fredoka One
and Amatic SC OFL-1.1; Intuitive OFL-1.1. Each package carries its own licence file.
"""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Family:
    """A typeface in two weights. `scale` evens out its size beside the others."""

    name: str
    font_class: str
    package: str
    regular: str
    bold: str
    scale: float = 1.0
    heldout: bool = False

    def path(self, weight: str) -> Path:
        """The font file of a weight."""
        folder = Path(str(importlib.import_module(self.package).__file__)).parent / "files"
        return folder / (self.bold if weight == "bold" else self.regular)


FAMILIES = (
    Family("Roboto", "sans", "font_roboto", "Roboto-Regular.ttf", "Roboto-Bold.ttf"),
    Family(
        "Source Sans Pro", "sans", "font_source_sans_pro",
        "SourceSansPro-Regular.ttf", "SourceSansPro-Bold.ttf", 1.08,
    ),
    Family(
        "Hanken Grotesk", "sans", "font_hanken_grotesk",
        "HankenGrotesk-Medium.otf", "HankenGrotesk-Bold.otf", heldout=True,
    ),
    Family(
        "Source Serif Pro", "serif", "font_source_serif_pro",
        "SourceSerifPro-Semibold.ttf", "SourceSerifPro-Bold.ttf", 1.04,
    ),
    Family(
        "Caladea", "serif", "font_caladea", "Caladea-Regular.ttf", "Caladea-Bold.ttf", 1.05,
        heldout=True,
    ),
    Family("Manrope", "rounded", "font_manrope", "Manrope-Medium.ttf", "Manrope-Bold.ttf"),
    Family(
        "Fredoka One", "rounded", "font_fredoka_one",
        "FredokaOne-Regular.ttf", "FredokaOne-Regular.ttf",
    ),
    Family(
        "Intuitive", "script", "font_intuitive", "Intuitive.ttf", "Intuitive.ttf", heldout=True
    ),
    Family(
        "Amatic SC", "script", "font_amatic_sc", "AmaticSC-Bold.ttf", "AmaticSC-Bold.ttf", 1.2
    ),
)  # fmt: skip


def families(font_class: str, split: str) -> list[Family]:
    """A class's families for a split: training never sees the held-out ones, evaluation sees
    all."""
    return [
        f for f in FAMILIES if f.font_class == font_class and (split == "heldout" or not f.heldout)
    ]
