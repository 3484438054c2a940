"""Inline SVG for the report's pages: tracks with intervals, bars, curves.

Horizontal places are percentages and everything else is pixels, so that a drawing fills any width
while its type and strokes keep their size. Colours are the page's own: what belongs to NAME has the
class `hue-NAME`. Shapes and dashes tell series apart where colours do not.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree

from markupsafe import Markup

from evals.results import LegibilityBin
from evals.scoring import Score

TRACK_PX, BAR_PX, CURVE_PX = 24, 22, 240  # heights
DASHES = ("", "7 4", "2 4", "9 3 2 3", "1 3", "12 4")
MARKERS = (
    "M0-4.5A4.5 4.5 0 1 1 0 4.5A4.5 4.5 0 1 1 0-4.5Z",  # circle
    "M-4-4H4V4H-4Z",
    "M0-5.5L5.5 0L0 5.5L-5.5 0Z",
    "M0-5L5 4H-5Z",
    "M0 5L5-4H-5Z",
    "M-5-2H-2V-5H2V-2H5V2H2V5H-2V2H-5Z",  # cross
)


@dataclasses.dataclass(frozen=True)
class Axis:
    """From `low` to `high` in equal steps between the ticks, or in equal factors."""

    low: float
    high: float
    ticks: tuple[float, ...]
    by_factors: bool = False

    def percent(self, value: float) -> str:
        """A value's place, kept on the axis."""
        ends = self.low, self.high, value
        low, high, here = map(math.log, ends) if self.by_factors else ends
        return f"{100 * min(max((here - low) / (high - low), 0), 1):.2f}%"


def axis_of(values: Iterable[float]) -> Axis:
    """An axis from 0, to 1 if that suffices, else to a round number over all values."""
    known = [value for value in values if math.isfinite(value)]
    most, least = max(known, default=1.0), min(known, default=0.0)
    high = 1.0 if most <= 1 else _round_up(most)
    low = 0.0 if least >= 0 else -_round_up(-least)
    return Axis(low, high, tuple(low + (high - low) * i / 4 for i in range(5)))


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value)


def _dash(series: int) -> str:
    """Another pairing with the markers in each round of them."""
    return DASHES[(series + series // len(MARKERS)) % len(DASHES)]


def _svg(height: float, label: str = "") -> ElementTree.Element:
    said = {"role": "img", "aria-label": label} if label else {"aria-hidden": "true"}
    return ElementTree.Element("svg", {"width": "100%", "height": f"{height:g}", **said})


def _add(parent: ElementTree.Element, tag: str, **given: object) -> ElementTree.Element:
    """An element whose attributes' trailing and inner underscores are hyphens."""
    names = {key.rstrip("_").replace("_", "-"): str(value) for key, value in given.items()}
    return ElementTree.SubElement(parent, tag, names)


def _markup(root: ElementTree.Element) -> Markup:
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _at(parent: ElementTree.Element, x: str, y: float = 0) -> ElementTree.Element:
    """A place from which pixels count: a path has no percentages."""
    return _add(parent, "svg", x=x, y=f"{y:.1f}", overflow="visible")


def _span(
    root: ElementTree.Element, axis: Axis, span: tuple[float, float], **style: object
) -> None:
    """A rectangle between two values."""
    low, high = (float(axis.percent(value)[:-1]) for value in sorted(span))
    _add(root, "rect", x=f"{low:.2f}%", width=f"{high - low:.2f}%", **style)


def track(
    axis: Axis,
    score: Score,
    *,
    room: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
    marker: int | None = 0,
) -> Markup:
    """A score on its line: the interval thick, the value as a marker, or with None as a bar from 0.

    `room`, from the floor to the ceiling, is shaded; `marks` are ticks at other values, with their
    names.
    """
    root, middle = _svg(TRACK_PX), TRACK_PX / 2
    if room and all(map(math.isfinite, room)):
        _span(root, axis, room, y=0, height=TRACK_PX, class_="room")
    line = {"y1": middle, "y2": middle}
    _add(root, "line", x1="0%", x2="100%", class_="baseline", **line)
    for name, value in (marks or {}).items():
        if math.isfinite(value):
            x = axis.percent(value)
            tick = _add(root, "line", x1=x, x2=x, y1=3, y2=TRACK_PX - 3, class_="tick")
            _add(tick, "title").text = f"{name} {value:.3f}"
    if math.isfinite(score.value) and marker is None:
        _span(root, axis, (0, score.value), y=middle - 6, height=12, class_="bar", rx=1)
    if math.isfinite(score.low) and math.isfinite(score.high):
        ends = {"x1": axis.percent(score.low), "x2": axis.percent(score.high)}
        _add(root, "line", class_="interval" if marker is not None else "whisker", **ends, **line)
    if math.isfinite(score.value) and marker is not None:
        here = _at(root, axis.percent(score.value), middle)
        _add(here, "path", d=MARKERS[marker % len(MARKERS)], class_="value")
    return _markup(root)


def scale(axis: Axis) -> Markup:
    """The numbers under tracks that share an axis."""
    root = _svg(16)
    for i, value in enumerate(axis.ticks):
        anchor = "start" if i == 0 else "end" if i == len(axis.ticks) - 1 else "middle"
        style = {"text_anchor": anchor, "class_": "scale"}
        _add(root, "text", x=axis.percent(value), y=12, **style).text = f"{value:g}"
    return _markup(root)


def stacked(counts: Mapping[str, int], *, height: float = BAR_PX) -> Markup:
    """Counts as shares of one bar, in their order; each part has its name's hue."""
    num_words, root, left = sum(counts.values()), _svg(height), 0.0
    for who, count in counts.items():
        if not count:
            continue
        wide = 100 * count / num_words
        place = {"x": f"{left:.3f}%", "width": f"{wide:.3f}%", "y": 0, "height": height}
        part = _add(root, "rect", class_=f"part hue-{who}", **place)
        _add(part, "title").text = f"{who}: {count} of {num_words} words"
        left += wide
    return _markup(root)


def swatch(series: int, hue: str) -> Markup:
    """A series' line and marker, as the legend shows them."""
    root = _svg(12)
    root.set("width", "30")
    group = _add(root, "g", class_=f"hue-{hue}")
    dash = _dash(series)
    _add(group, "line", x1=0, x2=30, y1=6, y2=6, class_="curve", stroke_dasharray=dash)
    _add(_at(group, "50%", 6), "path", d=MARKERS[series % len(MARKERS)], class_="value")
    return _markup(root)


def curves(
    series: Mapping[str, Sequence[LegibilityBin]],
    floors_px: Mapping[str, float],
    *,
    hues: Mapping[str, str],
    label: str,
    says_floors: bool = True,
) -> Markup:
    """Accuracy over pixels per character, with intervals; the floor of a series is a line from top
    to bottom, with its size beside it if it `says_floors`. All three mappings are by the names of
    the series."""
    bins = [part for several in series.values() for part in several]
    edges = sorted({edge for part in bins for edge in part.px})
    axis = Axis(edges[0], edges[-1], tuple(edges), by_factors=True)
    root, top = _svg(CURVE_PX + 46, label), 18
    plot = _add(root, "svg", y=top, height=CURVE_PX, overflow="visible")
    heights = {share: CURVE_PX * (1 - share) for share in (0, 0.25, 0.5, 0.75, 1)}
    for share, y in heights.items():
        _add(plot, "line", x1="0%", x2="100%", y1=y, y2=y, class_="grid")
        _add(plot, "text", x=-8, y=y + 4, text_anchor="end", class_="scale").text = f"{share:g}"
    for edge in _apart(axis):
        style = {"text_anchor": "middle", "class_": "scale"}
        _add(plot, "text", x=axis.percent(edge), y=CURVE_PX + 18, **style).text = f"{edge:g}"
    for i, (name, several) in enumerate(series.items()):
        group = _add(plot, "g", class_=f"hue-{hues[name]}")
        if math.isfinite(floor := floors_px.get(name, math.nan)):
            x = axis.percent(floor)
            _add(group, "line", x1=x, x2=x, y1=-6, y2=CURVE_PX, class_="floor")
            if says_floors:
                _floor_label(group, x, i, f"{floor:.3g} px")
        nudge = (i - (len(series) - 1) / 2) * 4  # intervals side by side, not one over another
        group = _add(group, "g", transform=f"translate({nudge:g} 0)")
        _curve(group, axis, several, i)
    return _markup(root)


def _floor_label(group: ElementTree.Element, x: str, series: int, text: str) -> None:
    right = float(x[:-1]) > 80
    here = _at(group, x, 6 + 15 * series)
    style = {"text_anchor": "end" if right else "start", "class_": "floor-label"}
    _add(here, "text", x=-5 if right else 5, y=5, **style).text = text


def _apart(axis: Axis) -> list[float]:
    """Ticks that leave each other room for their numbers."""
    kept: list[float] = []
    for tick in axis.ticks:
        if not kept or float(axis.percent(tick)[:-1]) - float(axis.percent(kept[-1])[:-1]) >= 7:
            kept.append(tick)
    return kept


def _curve(
    group: ElementTree.Element, axis: Axis, bins: Sequence[LegibilityBin], series: int
) -> None:
    points = [
        (axis.percent(math.sqrt(part.px[0] * part.px[1])), CURVE_PX * (1 - part.accuracy), part)
        for part in bins
        if math.isfinite(part.accuracy)
    ]
    dash = _dash(series)
    for (x1, y1, _), (x2, y2, _) in itertools.pairwise(points):
        place = {"x1": x1, "x2": x2, "y1": f"{y1:.1f}", "y2": f"{y2:.1f}"}
        _add(group, "line", class_="curve", stroke_dasharray=dash, **place)
    for x, y, part in points:
        if math.isfinite(part.low) and math.isfinite(part.high):
            ends = (f"{CURVE_PX * (1 - value):.1f}" for value in (part.low, part.high))
            _add(group, "line", x1=x, x2=x, y1=next(ends), y2=next(ends), class_="whisker")
        mark = _add(_at(group, x, y), "path", d=MARKERS[series % len(MARKERS)], class_="value")
        px = f"{part.px[0]:g} to {part.px[1]:g} px"
        _add(mark, "title").text = f"{px}: {part.accuracy:.3f} of {part.num_words} words"
