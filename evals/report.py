"""Scores for people: a table for the terminal, `scores.json`, and a page to open."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image, ImageDraw

from blueprint.typeset import PLAIN_FONT, load_font
from evals.metrics.words import word_hits

_TEMPLATES = Path(__file__).parent / "templates"
_LINE_PX, _GAP_PX = 15, 4


def sheet(
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    columns: int = 6,
    cell_px: int = 256,
) -> np.ndarray:
    """Pictures in rows, each `cell_px` wide over its caption: uint8 [Y X 3]."""
    font = load_font(PLAIN_FONT, 12)
    wrapped = [textwrap.fill(text, cell_px // 6, max_lines=5) for text in captions]
    rows = -(-len(pictures) // columns)
    heights = [round(p.shape[0] * cell_px / p.shape[1]) for p in pictures]
    lines = max((text.count("\n") + 1 for text in wrapped), default=0)
    wide, high = cell_px + 2 * _GAP_PX, max(heights, default=0) + lines * _LINE_PX + 3 * _GAP_PX
    page = Image.new("RGB", (min(columns, len(pictures)) * wide, rows * high), "white")
    draw = ImageDraw.Draw(page)
    for i, (picture, text, height) in enumerate(zip(pictures, wrapped, heights, strict=True)):
        x, y = i % columns * wide + _GAP_PX, i // columns * high + _GAP_PX
        large = Image.fromarray(picture).resize((cell_px, height), Image.Resampling.LANCZOS)
        page.paste(large, (x, y))
        draw.text((x, y + height + 2), text, "black", font)
    return np.asarray(page)


def table(scores: Mapping[str, Any]) -> str:
    """The stages, the controls and who lost the words, as lines of text."""
    lines = [f"{scores['num_words']} words on {scores['num_pages']} pages, {scores['reader']}", ""]
    for title in ("word_accuracy", "controls"):
        lines.append(title.replace("_", " "))
        lines += [f"  {name:<24}{value:7.3f}" for name, value in scores[title].items()]
    for name in ("copy_fidelity", "valid_blueprints"):
        lines.append(f"{name:<26}{scores[name]:7.3f}")
    lost = "  ".join(f"{who} {count}" for who, count in scores["attribution"].items())
    return "\n".join([*lines, f"lost by: {lost}"])


def write(
    folder: Path,
    scores: Mapping[str, Any],
    cases: Sequence[Any],
    pictures: Mapping[str, Sequence[np.ndarray]],
    reads: Mapping[str, Sequence[Sequence[str]]],
    *,
    plans: Sequence[str],
) -> Path:
    """Write everything into `folder` and return the path of the page; `plans` are SVG."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    rows = []
    for i, case in enumerate(cases):
        stages = []
        for stage, drawn in pictures.items():
            name = f"pictures/{i:03d}_{stage}.png"
            Image.fromarray(drawn[i]).save(folder / name)
            hits = word_hits(case.blueprint.words, reads[stage][i])
            marks = list(zip(case.blueprint.words, hits, strict=True))
            stages.append({"name": stage.replace("_", " "), "picture": name, "marks": marks})
        lost = not all(hit for _, hit in stages[-1]["marks"])
        rows.append(
            {"prompt": case.prompt, "domain": case.domain, "plan": plans[i], "stages": stages,
             "lost": lost}
        )  # fmt: skip
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("gallery.html").render(scores=scores, rows=rows)
    (folder / "index.html").write_text(page)
    return folder / "index.html"
