"""The best of several plans, where it is known which type will be legible."""

import pytest

from blueprint.grammar import Limits
from blueprint.schema import Blueprint, Box, Text
from sampling import planning
from sampling.planning import Plates, best_plans
from tests.probes import Loose

PROMPT = 'a sign "Hi"'


def sign(size_px):
    text = Text("title", ("Hi",), Box(100, 100, 800, 300), size_milli=round(size_px * 1000 / 128))
    return Blueprint(128, 128, "#fff", (text,))


@pytest.mark.parametrize(
    ("legible_px", "tried", "chosen"),
    [(None, (10, 20, 30), 10), (9.0, (10, 20), 10), (14.0, (10, 20, 30), 20), (40.0, (10, 20), 10)],
)
def test_type_that_is_legible_is_chosen(monkeypatch, legible_px, tried, chosen):
    """Of plans that are as good but for their type, the first whose type is legible, if any."""
    plans = iter(tried)
    monkeypatch.setattr(planning, "plan_pages", lambda *args, **how: [sign(next(plans))])
    plates = Plates(Limits((128, 128), 150), legible_px=legible_px)
    assert best_plans(Loose({}), [PROMPT], plates, num_tries=len(tried)) == [sign(chosen)]
