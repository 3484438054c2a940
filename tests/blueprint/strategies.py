"""Hypothesis strategies for valid blueprints of any script."""

from hypothesis import strategies as st

from blueprint import schema
from blueprint.schema import Blueprint, Box, Picture, Shape, Text

LINES = st.text(
    st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=12
).filter(lambda s: s.isprintable() and s.strip() == s)
COLOURS = st.from_regex(r"#[0-9a-f]{3}", fullmatch=True)


@st.composite
def boxes(draw):
    left, top = draw(st.integers(0, 999)), draw(st.integers(0, 999))
    return Box(left, top, draw(st.integers(1, 1000 - left)), draw(st.integers(1, 1000 - top)))


TEXTS = st.builds(
    Text,
    st.sampled_from(schema.TEXT_KINDS),
    st.lists(LINES, min_size=1, max_size=3).map(tuple),
    boxes(),
    st.sampled_from(schema.FONT_CLASSES),
    st.sampled_from(schema.WEIGHTS),
    st.integers(1, 1000),
    COLOURS,
    st.sampled_from(schema.ALIGNS),
    st.sampled_from(schema.SOURCES),
)
SHAPES = st.builds(
    Shape, st.sampled_from(schema.SHAPE_KINDS), boxes(), COLOURS, st.sampled_from(schema.PAINTS)
)
ELEMENTS = TEXTS | SHAPES | st.builds(Picture, boxes(), LINES)
SIDES = st.integers(1, 1000).map(lambda n: 8 * n)
BLUEPRINTS = st.builds(Blueprint, SIDES, SIDES, COLOURS, st.lists(ELEMENTS, max_size=5).map(tuple))
