"""What a score must be printed beside: pages that deserve nothing, and targets that do not
belong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from blueprint.typeset import PLAIN_FONT, load_font
from evals.metrics.words import word_accuracy
from evals.readers import RapidReader

FREQUENT_WORDS = """
the of and to a in is it you that he was for on are with as I his they be at one have this
from or had by hot word but what some we can out other were all there when up use your how
said an each she which do their time if will way about many then them write would like so
these her long make thing see him two has look more day could go come did number sound no
most people my over know water than call first who may down side been now Sale New Buy Shop
""".split()  # noqa: SIM905  # a hundred words read better as prose


def frequent_words_page(*, size_px: int = 512) -> np.ndarray:
    """The hundred most frequent words in rows, uint8 [Y X 3]: what a recall-only score can be gamed
    with."""
    page = Image.new("RGB", (size_px, size_px), "white")
    draw, font = ImageDraw.Draw(page), load_font(PLAIN_FONT, size_px // 24)
    rows = [FREQUENT_WORDS[i : i + 7] for i in range(0, len(FREQUENT_WORDS), 7)]
    for i, row in enumerate(rows):
        draw.text((8, 6 + i * size_px / len(rows)), "  ".join(row), "black", font)
    return np.asarray(page)


def control_scores(
    targets: Sequence[Sequence[str]], reads: Sequence[Sequence[str]], reader: RapidReader
) -> dict[str, float]:
    """Word accuracy of a blank page, of the frequent-word page, and of `reads` against the next
    page's targets."""
    blank = reader.words(np.full((128, 128, 3), 255, np.uint8))
    frequent = reader.words(frequent_words_page())
    shifted = [*targets[1:], *targets[:1]]
    return {
        "blank_page": word_accuracy(targets, [blank] * len(targets)),
        "frequent_words_page": word_accuracy(targets, [frequent] * len(targets)),
        "shuffled_targets": word_accuracy(shifted, reads),
    }
