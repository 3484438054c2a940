"""A bundle's model card: what it is, what it scores beside its controls, how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from evals.rendering import label, number, printable, spaced
from evals.results import Results
from evals.scoring import Score
from pipeline.sealed import read_config

NAME = "README.md"
_ABOUT = {
    "tokenizer": "pages to codes and back",
    "planner": "a prompt to a blueprint: which words, where, in which order",
    "decoder": "a blueprint to codes",
}


def write_card(folder: Path, content: Mapping[str, Any], results: Mapping[str, Results]) -> None:
    """Render `README.md` of a bundle that says `content` of itself and was scored so."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    made.filters.update(
        label=label, spaced=spaced, cell=_cell, interval=_interval, thousands="{:,}".format
    )
    models = content["models"]
    configs = {name: read_config(folder / name) for name in models}
    text = made.get_template("card.md.j2").render(
        content=content, models=models, about=_ABOUT, results=results,
        num_parameters=sum(model["num_parameters"] for model in models.values()),
        data={name: _data(config["data"]) for name, config in configs.items()},
        page=configs["tokenizer"]["data"]["page"],
    )  # fmt: skip
    (folder / NAME).write_text(text)


def _cell(text: Any) -> str:
    """Text that stays within its cell, its line and its page."""
    plain = printable(" ".join(str(text).split()))
    for sign in "\\|<>`[]":
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def _interval(score: Score | None) -> str:
    """A value with its interval."""
    if score is None:
        return ""
    return f"{number(score.value)} [{number(score.low)}, {number(score.high)}]"


def _data(data: Mapping[str, Any]) -> list[str]:
    """What a model has seen, a line for each source."""
    sources = data.get("sources") or {}
    fonts = "in fonts under OFL-1.1 and Apache-2.0"
    own = f"{data['num_pages']:,} procedural pages of this project, {fonts}"
    lines = []
    for name, source in sources.items():
        if source["format"] == "pages":
            lines.append(f"{name}: {own}")
        else:
            lines.append(f"{name}: {source['format']} from `{_cell(source.get('path', ''))}`")
    if data.get("codes"):
        return [f"the codes of {data['num_pages']:,} pages, made by the tokenizer"]
    return lines or [own]
