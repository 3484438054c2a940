"""How the report's pages say names and numbers, and the templates they are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import jinja2

from evals.attribution import STAGES
from evals.results import ControlNote

LABELS = {
    "blank": "blank page",
    "constant_100": "constant page, 100 words",
    "constant_500": "constant page, 500 words",
    "typeset": "typeset by us",
    "shuffled": "shuffled targets",
    "copied": "true blueprint, tokenizer alone",
    "reconstructed": "tokenizer's reconstruction",
    "given_blueprint": "decoder, true blueprint",
    "end_to_end": "end to end",
}
CEILING = "typeset"  # the control that no system is expected to pass
NO_FLOORS = frozenset({CEILING, "copied"})  # controls that were made for their prompts


def spaced(name: str) -> str:
    """A name as words."""
    return name.replace("_", " ")


def label(name: str) -> str:
    """What a control or a stage is called on a page."""
    return LABELS.get(name, spaced(name))


def hue(stage: str) -> str:
    """The hue of a stage: that of whom its losses are laid to."""
    return STAGES.get(stage, "result")


def ordered(counts: Mapping[str, int]) -> dict[str, int]:
    """An attribution's counts as they are drawn: what was read, then the stages' losses in turn."""
    known = [who for who in ("read", *STAGES.values()) if who in counts]
    return {who: counts[who] for who in [*known, *(who for who in counts if who not in known)]}


def number(value: float) -> str:
    """Three decimals of small numbers, fewer of large ones, a dash for none."""
    if math.isnan(value):
        return "–"
    decimals = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{decimals}f}".replace("-", "−")


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"+{number(value)}" if value > 0 else number(value)


def percent(share: float) -> str:
    """A share in percent, with one decimal where it is small."""
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def failed(note: ControlNote) -> str:
    """How much of a control could not be set or read."""
    num = len(note.problems)
    return f"{num:,} {'problem' if num == 1 else 'problems'} in setting or reading it"


def printable(text: str) -> str:
    """Text in one line that cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def loser(who: str) -> str:
    """Who lost words, in the attribution's legend."""
    return "read" if who == "read" else f"lost by the {who}"


def environment() -> jinja2.Environment:
    """The templates, escaping all that they are given."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(
        spaced=spaced, label=label, number=number, signed=signed, percent=percent, loser=loser,
        failed=failed,
        thousands="{:,}".format, plain="{:g}".format, short="{:.3g}".format,
    )  # fmt: skip
    return made
