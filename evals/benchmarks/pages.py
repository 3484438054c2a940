"""Our own benchmark: procedural posters, mockups and shop pages whose every string the prompt
quotes, with exact words, boxes and type sizes.

A split is a fixed list of (seed, style); with `VERSION` and a page size it *is* the benchmark, and
anyone makes it again bit for bit with the packages of `constraints.txt`. `fingerprint` says whether
he did: other versions of Faker or the font packages have other words and widths.

What a page can hold is a matter of its size. In type of 11 px or more the fullest pages of `dense`
have 8 to 15 words at 128 px, 34 to 61 at 256 px, and only at 512 px 133 to 200. Buckets that a page
size cannot fill are empty, not faked.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from blueprint.formats import to_json
from blueprint.schema import Blueprint, Box
from evals.facets import CHAR_PX, LINES, TYPE_PX, WORDS, Word, bucket, placed_words
from evals.metrics.layout import LAYOUT
from evals.metrics.strict import STRICT
from evals.readers import Quad
from evals.scoring import Benchmark, Case
from train.data.posters.canvas import PageStyle, choose_families
from train.data.posters.pages import domain_of, page, plan
from train.data.posters.words import in_training

VERSION = 1
FIRST_SEED = 1_000_000
FIRST_TRAINING_SEED = 1_000_000_000  # of pages with training's words and faces; runs have fewer
BODIES_PX = (6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 24, 28, 32, 36, 40)
WORDS_ON_A_PAGE = ((1, 3), (4, 7), (8, 15), (16, 31), (32, 63), (64, 127), (128, 200))


@dataclasses.dataclass(frozen=True)
class Split:
    """`num_pages` pages of `page_px` (width, height), unless the caller has others: page i is that
    of the i-th seed in the i-th style, the styles in turn; `what` they are for."""

    what: str
    styles: tuple[PageStyle, ...]
    num_pages: int
    page_px: tuple[int, int]

    def page(self, i: int, page_px: tuple[int, int]) -> tuple[int, PageStyle]:
        """(seed, style) of page i."""
        style = self.styles[i % len(self.styles)]
        first = FIRST_SEED if style.split == "heldout" else FIRST_TRAINING_SEED
        return first + i, dataclasses.replace(style, width_px=page_px[0], height_px=page_px[1])


def _both(styles: Sequence[PageStyle]) -> tuple[PageStyle, ...]:
    """Each with words and typefaces that training never sees, then each with those that it does."""
    halves = ("heldout", "train")
    return tuple(dataclasses.replace(s, split=half) for half in halves for s in styles)


SPLITS: Mapping[str, Split] = {
    "core": Split(
        "the pages that a model is trained on, of held-out strings and typefaces",
        (PageStyle(split="heldout", quoted="all"),), 96, (128, 128),
    ),
    "dense": Split(
        "1 to 200 words a page, as many pages in each octave, in type of 11 px or more",
        _both([PageStyle(quoted="all", dense=1.0, num_words=n, body_px=(11, 48))
               for n in WORDS_ON_A_PAGE]), 98, (512, 512),
    ),
    "sizes": Split(
        "type of 6 px (under what `blueprint/check.py` accepts) to 40 px and more, on pages of no "
        "more than 64 characters, which the demo's decoder can print",
        _both([PageStyle(quoted="all", dense=1.0, num_words=(4, 9), body_px=(px, px))
               for px in BODIES_PX]), 192, (128, 128),
    ),
}  # fmt: skip
NAMES = {"pages" if split == "core" else f"pages-{split}": split for split in SPLITS}


@dataclasses.dataclass(frozen=True)
class PageCase(Case):
    """A case that is a procedural page, and so has its typeset picture and knows its typefaces."""

    seed: int = 0
    style: PageStyle = dataclasses.field(default_factory=PageStyle)

    @property
    def domain(self) -> str:
        """poster, mockup or shop."""
        return self.groups["domain"]

    @functools.cached_property
    def pixels(self) -> UInt8[np.ndarray, "Y X 3"]:
        """The page as the typesetter has it: the ceiling of every score. Painted when first asked
        for."""
        return page(self.seed, self.style).pixels

    @functools.cached_property
    def words(self) -> tuple[Word, ...]:
        """The target words in order, each with its facets and sizes."""
        return _words(self.seed, self.style, self.domain, self.blueprint)


def _words(seed: int, style: PageStyle, domain: str, blueprint: Blueprint) -> tuple[Word, ...]:
    families = choose_families(seed, style.split)
    found = []
    for text, word in placed_words(blueprint, {c: f.face for c, f in families.items()}):
        family = families[text.font]
        own = {
            "domain": domain,
            "typeface": family.name,
            "fonts": "heldout" if family.heldout else "training",
            "strings": "training" if in_training(word.string) else "heldout",
        }
        found.append(dataclasses.replace(word, facets={**word.facets, **own}))
    return tuple(found)


def _quad(box: Box) -> Quad:
    """The corners of a box in shares of the page, clockwise from the top left."""
    left, top = box.left / 1000, box.top / 1000
    right, foot = (box.left + box.width) / 1000, (box.top + box.height) / 1000
    return (left, top), (right, top), (right, foot), (left, foot)


def _groups(words: Sequence[Word], blueprint: Blueprint) -> dict[str, str]:
    """What a whole page is: its smallest type, its most lines, and `both` or `several` where its
    words differ."""
    least = {"type_px": TYPE_PX, "char_px": CHAR_PX}
    groups = {
        name: bucket(min(getattr(w, name) for w in words), edges) for name, edges in least.items()
    }
    groups["words"] = bucket(len(words), WORDS)
    groups["lines"] = bucket(max(len(text.lines) for text in blueprint.texts), LINES)
    for facet, many in (("font", "several"), ("fonts", "both"), ("strings", "both")):
        values = {word.facets[facet] for word in words}
        groups[facet] = many if len(values) > 1 else values.pop()
    return groups


def _case(name: str, seed: int, style: PageStyle) -> PageCase:
    prompt, blueprint = plan(seed, style)
    domain = domain_of(seed, style.split)
    words = _words(seed, style, domain, blueprint)
    return PageCase(
        name,
        prompt,
        tuple(text.string for text in blueprint.texts),
        tuple(_quad(text.box) for text in blueprint.texts),
        {"domain": domain, **_groups(words, blueprint)},
        blueprint=blueprint,
        seed=seed,
        style=style,
    )


def cases(
    num_pages: int = 0,
    *,
    split: str = "core",
    width_px: int = 0,
    height_px: int = 0,
) -> list[PageCase]:
    """The first pages of a split: as many and as large as it has them, or as told. One target is
    one text, its quad the text's box.

    Raises `ValueError` for a split that there is not.
    """
    if split not in SPLITS:
        raise ValueError(f"pages has no split {split!r}; it has {', '.join(SPLITS)}")
    chosen = SPLITS[split]
    size = width_px or chosen.page_px[0], height_px or chosen.page_px[1]
    pages = [chosen.page(i, size) for i in range(num_pages or chosen.num_pages)]
    name = f"{split}-{size[0]}x{size[1]}"
    return [_case(f"{name}-{i:04d}", *seeded) for i, seeded in enumerate(pages)]


def fingerprint(cases: Sequence[Case]) -> str:
    """A hash of all prompts and blueprints: scores with the same one are of the same pages."""
    told = hashlib.sha256(f"pages {VERSION}".encode())
    for case in cases:
        told.update(f"{case.name}\n{case.prompt}\n".encode())
        told.update(to_json(case.blueprint).encode() if case.blueprint else b"")
    return told.hexdigest()[:16]


def benchmark(
    split: str = "core", *, num_pages: int = 0, page_px: tuple[int, int] | None = None
) -> Benchmark:
    """A split as a benchmark; its cases are `PageCase`s, at the models' page size if told."""

    def made(where: Path | None) -> list[Case]:
        if where is not None:
            raise ValueError(
                f"pages makes its own cases and reads nothing at {where}: leave it out"
            )
        width_px, height_px = page_px or SPLITS[split].page_px
        return list(cases(num_pages, split=split, width_px=width_px, height_px=height_px))

    (name,) = (name for name, own in NAMES.items() if own == split)
    # Not exact_word_accuracy: one page that carries every word would score 1 on that.
    return Benchmark(name, made, (*STRICT, *LAYOUT), "word_f1", "")


def _redrawn(split: str, **how: Any) -> Benchmark:
    """`benchmark`, which can be redrawn again."""
    again = functools.partial(_redrawn, split)
    return dataclasses.replace(benchmark(split, **how), redrawn=again)


BENCHMARK, BENCHMARK_DENSE, BENCHMARK_SIZES = map(_redrawn, SPLITS)
