"""What a person would have typed to get this page: the strings verbatim and in order, the rest
sometimes said."""

from __future__ import annotations

import random

from blueprint.schema import Blueprint, Text
from train.data.posters.palettes import colour_name

_OPENINGS = (
    "A {scene}", "a {scene}", "Make a {scene}", "Design me a {scene}", "I need a {scene}",
    "{scene}", "Please draw a {scene}", "Create a simple {scene}", "we want a {scene}",
    "Hey, can you do a {scene}?", "Can you make me a {scene}?", "minimal {scene}",
    "a clean {scene}", "a bold {scene}", "Looking for a {scene}", "my {scene}", "{scene} please",
)  # fmt: skip
_LINKS = (
    " with ", ": ", " that has ", ", ", " showing ", ". It should say ", " that says ", " ",
    ". Put ", ". Text: ",
)  # fmt: skip
_SAYS = (
    '{role} "{s}"', '{role} that says "{s}"', '{role} reading "{s}"', '"{s}" as {role}', '"{s}"',
    '{role}: "{s}"',
)  # fmt: skip
_ROLES = {
    "title": ("the title", "a headline", "big text", "the heading", "header", "really big"),
    "subtitle": ("a subtitle", "the line", "smaller text", "the date line"),
    "body": ("the text", "a message", "the words", "a line"),
    "label": ("a label", "small text", "the label", "a note"),
    "button": ("a button", "the button", "a button labelled", "a call to action"),
    "price": ("the price", "a price", "a big number"),
    "badge": ("a badge", "a sticker", "the badge"),
    "link": ("a link",), "field": ("a field", "an input field", "the field"),
}  # fmt: skip


def _where(text: Text) -> str:
    middle = text.box.top + text.box.height // 2
    return "at the top" if middle < 330 else "at the bottom" if middle > 670 else "in the middle"


def _describe(text: Text, rng: random.Random, *, verbose: bool) -> str:
    role = rng.choice(_ROLES[text.kind])
    phrase = rng.choice(_SAYS if rng.random() < 0.6 else _SAYS[:1]).format(role=role, s=text.string)
    if verbose and rng.random() < 0.35:
        phrase += f" {_where(text)}"
    if verbose and rng.random() < 0.3:
        look = [colour_name(text.colour)] if rng.random() < 0.6 else []
        look += [text.weight] if text.weight == "bold" and rng.random() < 0.3 else []
        look += [text.font] if not look or rng.random() < 0.3 else []
        phrase += f" in {' '.join(look)}"
    return phrase


def write(scene: str, blueprint: Blueprint, rng: random.Random) -> str:
    """A prompt for the page. Every `verbatim` text is quoted in reading order; `free` ones go
    unsaid."""
    opening = rng.choice(_OPENINGS).format(scene=scene)
    if rng.random() < 0.35:
        opening += f" on a {colour_name(blueprint.background)} background"
    quoted = [t for t in blueprint.texts if t.source == "verbatim"]
    if not quoted:
        return opening
    if rng.random() < 0.25:
        strings = rng.choice((", ", ", ", " and ", " ")).join(f'"{t.string}"' for t in quoted)
        said = rng.choice((" with the words ", " saying ", ": ", " "))
        return f"{opening}{said}{strings}"
    parts = [_describe(t, rng, verbose=len(quoted) < 4) for t in quoted]
    glue = rng.choice((", ", ", ", "; ", " and "))
    last = rng.choice((" and ", ", and ", glue))
    body = glue.join(parts[:-1]) + (last if parts[:-1] else "") + parts[-1]
    return f"{opening}{rng.choice(_LINKS)}{body}"
