"""What a blueprint leaves open: texts, pictures, figures and outlines; the ground and plain boxes
it does not."""

import jax.numpy as jnp
import numpy as np

from blueprint.schema import Blueprint, Box, Picture, Shape, Text
from decoder.certainty import certain
from decoder.conditioning import ConditioningConfig, condition


def seen(*elements):
    told = condition(Blueprint(128, 128, "#fff", elements), ConditioningConfig())
    return np.asarray(certain({n: jnp.array(a)[None] for n, a in told.items()}))[0]


def test_only_what_the_canonical_page_shows_as_it_is_is_certain():
    half = Box(0, 0, 1000, 500)
    assert seen().all() and seen(Shape("rectangle", half, "#f00")).all()
    inside = {
        "text": Text("title", ("Moon",), Box(125, 125, 500, 250), size_milli=150),
        "picture": Picture(Box(125, 125, 500, 250), "a cat"),
        "figure": Shape("star", Box(125, 125, 500, 250), "#f00"),
        "outline": Shape("rectangle", Box(125, 125, 500, 250), "#f00", "outline"),
    }
    for name, element in inside.items():
        found = seen(Shape("rectangle", half, "#0f0"), element)
        assert not found[2:6, 2:10].any(), name
        assert found[7:].all() and found[:, 12:].all(), name
