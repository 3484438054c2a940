"""What a caller fixes is honoured by every walk, and a bad wish is named."""

import json
import random

import pytest

from blueprint.codec import decode
from blueprint.copying import automaton
from blueprint.fitting import covers, overlap
from blueprint.grammar import Limits
from blueprint.schema import BlueprintError, Box, Text
from blueprint.wishes import Wishes, from_json
from tests.blueprint.test_blueprint import walk

PROMPT = 'a page with "Grand Opening Day" and "K9"'
WISHES = from_json(
    json.dumps(
        {
            "palette": ["#fff", "#124", "#fb3"],
            "boxes": {"Grand Opening Day": [100, 50, 500, 400]},
            "keep_free": [[700, 700, 300, 300]],
        }
    )
)


@pytest.mark.parametrize("seed", range(12))
def test_wishes_are_honoured(seed):
    grammar = automaton(PROMPT, Limits((128, 128), 150), min_type_px=10, wishes=WISHES)
    page = decode(walk(grammar, random.Random(seed), prefer=("end", "text", "source:verbatim")))
    assert page.background in WISHES.palette
    placed = {t.string: t for t in page.texts if t.source == "verbatim"}
    assert placed["Grand Opening Day"].box == Box(100, 50, 500, 400)
    assert len(placed["Grand Opening Day"].lines) > 1  # too wide for its box in one
    for element in page.elements:
        if not covers(element) or not hasattr(element, "caption"):
            assert element.colour in WISHES.palette
        full = any(t.size_milli > 150 for t in page.texts)
        if (covers(element) or isinstance(element, Text)) and not full:
            assert not overlap(element.box, WISHES.keep_free[0])


@pytest.mark.parametrize(
    ("wish", "path"),
    [
        ('{"palette": ["red"]}', "palette[0]"),
        ('{"colours": []}', "colours"),
        ('{"palette": "#fff"}', "palette"),
        ('{"keep_free": [[0, 0, 10]]}', "keep_free[0]"),
        ('{"boxes": {"Hi": [990, 0, 20, 10]}}', "boxes['Hi'].width"),
        ("{", "wishes"),
    ],
)
def test_a_bad_wish_is_named(wish, path):
    with pytest.raises(BlueprintError) as caught:
        from_json(wish)
    assert caught.value.path == path


def test_a_place_for_what_is_not_quoted_is_refused():
    wishes = Wishes(boxes={"Sale": Box(0, 0, 100, 100)})
    with pytest.raises(BlueprintError, match='is not quoted; the prompt quotes "K9"'):
        automaton('a "K9"', Limits((64, 64), 90), min_type_px=8, wishes=wishes)
