"""`page(seed)`: a prompt, its blueprint and its pixels, a pure function of (seed, style)."""

from __future__ import annotations

import dataclasses
import random

import numpy as np

from blueprint.schema import Blueprint
from train.data.posters import dense, prompts
from train.data.posters.canvas import Canvas, PageStyle, choose_families
from train.data.posters.painting import paint
from train.data.posters.scenes import DOMAINS


@dataclasses.dataclass(frozen=True)
class Page:
    """`pixels` is uint8 [Y X 3]; `domain` is poster, mockup or shop."""

    domain: str
    prompt: str
    blueprint: Blueprint
    pixels: np.ndarray


def _begin(seed: int, split: str) -> tuple[str, random.Random]:
    rng = random.Random(f"scene {seed} {split}")
    return tuple(DOMAINS)[rng.randrange(len(DOMAINS))], rng


def domain_of(seed: int, split: str) -> str:
    """The domain that a seed's page is of in a split, without laying it out."""
    return _begin(seed, split)[0]


def _layout(seed: int, style: PageStyle) -> tuple[str, str, Blueprint]:
    domain, rng = _begin(seed, style.split)
    palettes, scenes = DOMAINS[domain]
    canvas = Canvas(seed, style, palettes)
    if style.dense and random.Random(f"dense {seed} {style.split}").random() < style.dense:
        scene = dense.compose(canvas, domain)
    else:
        scene = rng.choice(scenes)(canvas)
    page = style.width_px, style.height_px
    blueprint = Blueprint(*page, canvas.palette.ground, tuple(canvas.elements))
    return domain, prompts.write(scene, blueprint, rng), blueprint


def plan(seed: int, style: PageStyle) -> tuple[str, Blueprint]:
    """(prompt, blueprint) of a page without painting it."""
    return _layout(seed, style)[1:]


def page(seed: int, style: PageStyle) -> Page:
    """The page of a seed. The same seed is another page in another split, size or quoting."""
    domain, prompt, blueprint = _layout(seed, style)
    families = choose_families(seed, style.split)
    pixels = paint(blueprint, families, random.Random(f"paint {seed} {style.split}"))
    return Page(domain, prompt, blueprint, pixels)
