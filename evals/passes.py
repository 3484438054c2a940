"""Words printed against forward passes: what each way of printing costs and keeps, as a table and
as a drawing."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import numpy as np
import resvg_py
from PIL import Image

from blueprint.typeset import CANONICAL_FACES
from evals.scoring import Score

WIDE_PX, HIGH_PX, MARGIN_PX, LEGEND_PX = 460, 300, 46, 22
COLOURS = ("#d6336c", "#1c7ed6", "#2b8a3e", "#e8590c", "#7048e8", "#0b7285", "#868e96")
DASHES = ("", "7 4", "2 4", "9 3 2 3")


@dataclasses.dataclass(frozen=True)
class Row:
    """One decoder (`model`) printing in one `way`: `asked` passes or positions at once, `passes` a
    page on average, exact words with their interval, and milliseconds a page by batch size."""

    model: str
    way: str
    asked: int
    passes: float
    words: Score
    elements: float
    psnr_db: float
    code_accuracy: float
    ms: Mapping[int, float] = dataclasses.field(default_factory=dict)

    @property
    def series(self) -> str:
        """The curve that it is a point of."""
        return f"{self.model}, {self.way}"


def table(rows: Sequence[Row], base: Row) -> str:
    """Markdown; speeds are ratios to the base, by batch size."""
    batches = sorted(base.ms)
    head = ["decoder", "order", "asked", "passes", "words", "95 %", "elements", "PSNR dB",
            "codes right", *(f"ms a page, batch {b}" for b in batches),
            *(f"times faster, batch {b}" for b in batches)]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [
            row.model, row.way, str(row.asked), f"{row.passes:.1f}", f"{row.words.value:.3f}",
            f"{row.words.low:.3f} to {row.words.high:.3f}", f"{row.elements:.3f}",
            f"{row.psnr_db:.1f}", f"{row.code_accuracy:.3f}",
            *(f"{row.ms[b]:.1f}" if b in row.ms else "" for b in batches),
            *(f"{base.ms[b] / row.ms[b]:.1f}" if b in row.ms else "" for b in batches),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def keeps_words(row: Row, base: Row) -> bool:
    """Whether its exact words are no fewer than the base's, in doubt for the row: the base's value
    is not above its interval."""
    return row.words.high >= base.words.value


def chart(rows: Sequence[Row], marks: Mapping[str, float]) -> str:
    """A stand-alone SVG: exact words against passes a page and, where times are known, against
    milliseconds a page at batch 1; `marks` are scores beside, as lines from side to side."""
    names = list(dict.fromkeys(row.series for row in rows))
    panels = [("forward passes a page", lambda row: row.passes)]
    if all(1 in row.ms for row in rows):
        panels.append(("ms a page, batch 1", lambda row: row.ms[1]))
    W = len(panels) * (WIDE_PX + MARGIN_PX) + MARGIN_PX
    H = HIGH_PX + 2 * MARGIN_PX + LEGEND_PX * ((len(names) + 1) // 2)
    root = ElementTree.Element(
        "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {W} {H}", width=str(W),
        height=str(H), style="font: 12px sans-serif",
    )  # fmt: skip
    _add(root, "rect", width=W, height=H, fill="#fff")
    values = [v for r in rows for v in (r.words.low, r.words.high)] + list(marks.values())
    lowest = min([0.9, *(v for v in values if math.isfinite(v))])  # all words leave a span too
    low = math.floor(10 * lowest) / 10
    _add(root, "text", x=4, y=14).text = "exact words"
    for i, (said, of) in enumerate(panels):
        x = MARGIN_PX + i * (WIDE_PX + MARGIN_PX)
        group = _add(root, "g", transform=f"translate({x} {MARGIN_PX / 2 + 4:g})")
        _panel(group, [(row, of(row)) for row in rows], names, (low, 1.0))
        label = {"x": WIDE_PX / 2, "y": HIGH_PX + 34, "text_anchor": "middle"}
        _add(group, "text", **label).text = said
        for name, value in marks.items():
            y = HIGH_PX * (1 - (value - low) / (1 - low))
            line = {"stroke": "#495057", "stroke_dasharray": "3 3"}
            _add(group, "line", x1=0, x2=WIDE_PX, y1=y, y2=y, **line)
            _add(group, "text", x=4, y=y - 4, fill="#495057", font_size=11).text = name
    for k, name in enumerate(names):
        x = MARGIN_PX + (k % 2) * (WIDE_PX if len(panels) > 1 else WIDE_PX // 2)
        y = HIGH_PX + MARGIN_PX * 1.6 + LEGEND_PX * (k // 2)
        _add(root, "line", x1=x, x2=x + 26, y1=y, y2=y, **_stroke(names, name))
        _add(root, "circle", cx=x + 13, cy=y, r=3.5, fill=COLOURS[k % len(COLOURS)])
        _add(root, "text", x=x + 34, y=y + 4).text = name
    return ElementTree.tostring(root, encoding="unicode")


def _panel(
    group: ElementTree.Element,
    points: Sequence[tuple[Row, float]],
    names: Sequence[str],
    span: tuple[float, float],
) -> None:
    """Words over a quantity by factors of two."""
    steps = [math.log2(x) for _, x in points]
    first, last = math.floor(min(steps)), max(math.ceil(max(steps)), math.floor(min(steps)) + 1)
    place = lambda x: WIDE_PX * (math.log2(x) - first) / (last - first)  # noqa: E731
    height = lambda v: HIGH_PX * (1 - (v - span[0]) / (span[1] - span[0]))  # noqa: E731
    for tick in np.arange(span[0], span[1] + 0.01, 0.05 if span[0] > 0.6 else 0.1):
        y = height(tick)
        _add(group, "line", x1=0, x2=WIDE_PX, y1=y, y2=y, stroke="#dee2e6")
        _add(group, "text", x=-6, y=y + 4, text_anchor="end").text = f"{tick:.2f}"
    for power in range(first, last + 1):
        x = place(2.0**power)
        _add(group, "line", x1=x, x2=x, y1=0, y2=HIGH_PX, stroke="#f1f3f5")
        _add(group, "text", x=x, y=HIGH_PX + 16, text_anchor="middle").text = f"{2.0**power:g}"
    for k, name in enumerate(names):
        own = sorted(((x, row) for row, x in points if row.series == name), key=lambda p: p[0])
        nudge = (k - (len(names) - 1) / 2) * 2.5  # intervals side by side
        here = _add(group, "g", transform=f"translate({nudge:g} 0)")
        corners = " ".join(f"{place(x):.1f},{height(r.words.value):.1f}" for x, r in own)
        _add(here, "polyline", points=corners, fill="none", **_stroke(names, name))
        for x, row in own:
            ends = {"y1": height(row.words.low), "y2": height(row.words.high)}
            colour = COLOURS[k % len(COLOURS)]
            _add(here, "line", x1=place(x), x2=place(x), stroke=colour, opacity=0.35, **ends)
            _add(here, "circle", cx=place(x), cy=height(row.words.value), r=3.5, fill=colour)


def _stroke(names: Sequence[str], name: str) -> dict[str, object]:
    k = list(names).index(name)
    found: dict[str, object] = {"stroke": COLOURS[k % len(COLOURS)], "stroke_width": 2}
    dash = DASHES[k // len(COLOURS) % len(DASHES)]
    return {**found, "stroke_dasharray": dash} if dash else found


def _add(parent: ElementTree.Element, tag: str, **given: object) -> ElementTree.Element:
    """An element whose attributes' underscores are hyphens and whose numbers are short."""
    short = lambda v: f"{v:.6g}" if isinstance(v, float) else str(v)  # noqa: E731
    names = {key.replace("_", "-"): short(value) for key, value in given.items()}
    return ElementTree.SubElement(parent, tag, names)


def to_png(svg: str, *, scale: int = 2) -> bytes:
    """The drawing in pixels, of few colours, set in a face that our pages have."""
    files = [str(CANONICAL_FACES["sans"].path("regular"))]
    png = resvg_py.svg_to_bytes(
        svg_string=svg, skip_system_fonts=True, font_files=files, font_family="Roboto",
        sans_serif_family="Roboto", zoom=scale,
    )  # fmt: skip
    few = Image.open(io.BytesIO(bytes(png))).convert("RGB").quantize(64)
    made = io.BytesIO()
    few.save(made, "png", optimize=True)
    return made.getvalue()
