"""A measured floor turns small type into a finding, and only where the fixed rules let it pass."""

from blueprint.check import RULES, demerits, findings
from blueprint.schema import Blueprint, Box, Text


def of_type(*sizes_px):
    texts = tuple(
        Text("label", ("ab",), Box(0, 250 * i, 900, 240), size_milli=round(size * 1000 / 128))
        for i, size in enumerate(sizes_px)
    )
    return Blueprint(128, 128, "#fff", texts)


def test_type_under_the_measured_floor_is_found():
    page = of_type(7, 9, 12)
    assert [f.rule for f in findings(page)] == ["type size"]
    found = findings(page, legible_px=12)
    assert [(f.rule, f.path) for f in found] == [
        ("type size", "elements[0].size_milli"), ("legibility", "elements[1].size_milli"),
    ]  # fmt: skip
    assert found[1].message == "9 px under the measured 12"
    assert {f.rule for f in found} <= set(RULES)


def test_it_counts_as_a_demerit():
    page = of_type(9, 12, 16)
    assert [demerits("a page", page, legible_px=px) for px in (None, 9, 10, 14, 20)] == [
        0, 0, 1, 2, 3,
    ]  # fmt: skip
