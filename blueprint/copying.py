"""What a prompt asks for word by word: its quoted strings, and the automaton that copies them."""

from __future__ import annotations

import re

from blueprint.fitting import Fitting
from blueprint.grammar import Grammar, Limits
from blueprint.wishes import Wishes

# Single quotes open after a blank or a bracket and close before one or before punctuation: an
# apostrophe inside a word neither opens nor closes.
_QUOTED = re.compile(
    r"\"([^\"]+)\"|“([^”]+)”|„([^“”]+)[“”]|«([^»]+)»|‘((?:[^’]|’(?=\w))+)’"
    r"|(?:(?<=[\s(\[:,])|^)'(\S(?:[^']|'(?=\w))*?)'(?=[\s)\],.;:!?]|$)"
)


def fold(string: str) -> str:
    """A string as a page can print it: what cannot be printed is a blank, and runs of blanks are
    one."""
    return " ".join("".join(c if c.isprintable() else " " for c in string).split())


def quoted(prompt: str) -> tuple[str, ...]:
    """The strings a prompt quotes, in its order: straight, curly, low-high, angled or single
    quotes."""
    found = (fold(next(g for g in match.groups() if g)) for match in _QUOTED.finditer(prompt))
    return tuple(string for string in found if string)


def automaton(
    prompt: str,
    limits: Limits,
    *,
    min_type_px: int = 0,
    wishes: Wishes = Wishes(),  # noqa: B008  # a frozen value
) -> Grammar:
    """The grammar of blueprints that hold every quoted string of `prompt` verbatim and in order.

    With `min_type_px` they also keep the rules and the wishes of `Fitting`; the limits then have a
    page size. Raises `ValueError` when not even the shortest such blueprint keeps the limits,
    `BlueprintError` for a wish about a string that is not quoted.
    """
    quotes = quoted(prompt)
    wishes.require_quoted(quotes)
    room = None
    if min_type_px and limits.page_px:
        room = Fitting(limits.page_px, min_type_px=min_type_px, wishes=wishes)
    return Grammar(limits, quotes=quotes, room=room)
