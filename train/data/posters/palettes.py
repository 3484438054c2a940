"""Colours that go together, as `#rgb`, and ink that can be read on any of them."""

from __future__ import annotations

import dataclasses
import random

from blueprint.fitting import MIN_CONTRAST, contrast

NAMES = {
    "#000": "black", "#fff": "white", "#f44": "red", "#d33": "red", "#e63": "orange",
    "#fb3": "yellow", "#fd5": "yellow", "#2a6": "green", "#174": "dark green", "#4be": "sky blue",
    "#15a": "blue", "#124": "navy", "#63b": "purple", "#f7a": "pink", "#841": "brown",
    "#fed": "cream", "#eee": "light grey", "#333": "charcoal",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Palette:
    """`ground` is the page, `card` what lies on it, `accent` what should be seen, `line` what
    should not."""

    ground: str
    card: str
    accent: str
    line: str

    def ink(self, on: str, rng: random.Random) -> str:
        """A text colour with enough contrast on a colour of the palette: often tinted, else black
        or white."""
        tinted = [c for c in (self.accent, self.ground, self.card) if contrast(c, on) >= 5.5]
        if tinted and rng.random() < 0.45:
            return rng.choice(tinted)
        best = max(("#111", "#fff"), key=lambda c: contrast(c, on))
        softer = [c for c in ("#124", "#333", "#fed", "#eee") if contrast(c, on) > 2 * MIN_CONTRAST]
        return rng.choice([best, *softer])


POSTERS = (
    Palette("#fd5", "#fff", "#d33", "#841"), Palette("#124", "#25a", "#fb3", "#68b"),
    Palette("#fed", "#fff", "#174", "#cb9"), Palette("#d33", "#fed", "#124", "#f99"),
    Palette("#174", "#fed", "#fb3", "#5a7"), Palette("#63b", "#fff", "#fd5", "#a8e"),
    Palette("#111", "#333", "#f44", "#666"), Palette("#fcd", "#fff", "#a27", "#e9b"),
    Palette("#4be", "#fff", "#124", "#28b"), Palette("#e63", "#fed", "#311", "#fa8"),
    Palette("#eee", "#fff", "#15a", "#bbb"), Palette("#233", "#eed", "#fb3", "#577"),
)  # fmt: skip
MOCKUPS = (
    Palette("#fff", "#eef", "#15a", "#ccd"), Palette("#eef", "#fff", "#63b", "#bbc"),
    Palette("#111", "#223", "#4be", "#445"), Palette("#eee", "#fff", "#174", "#ccc"),
    Palette("#fff", "#fee", "#d33", "#dcc"), Palette("#223", "#334", "#fb3", "#556"),
    Palette("#efe", "#fff", "#174", "#bcb"), Palette("#fff", "#eee", "#111", "#bbb"),
)  # fmt: skip
SHOPS = (
    Palette("#fff", "#eee", "#d33", "#ccc"), Palette("#fed", "#fff", "#841", "#dcb"),
    Palette("#eee", "#fff", "#e30", "#bbb"), Palette("#dee", "#fff", "#155", "#abb"),
    Palette("#124", "#fff", "#fb3", "#456"), Palette("#fde", "#fff", "#a25", "#dab"),
    Palette("#333", "#eee", "#fd5", "#666"), Palette("#dfd", "#fff", "#163", "#aca"),
)  # fmt: skip


def colour_name(colour: str) -> str:
    """The nearest of a few everyday names."""
    wanted = [int(digit, 16) for digit in colour[1:]]

    def distance(name: str) -> int:
        return sum((int(d, 16) - n) ** 2 for d, n in zip(name[1:], wanted, strict=True))

    return NAMES[min(NAMES, key=distance)]
