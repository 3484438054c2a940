"""The outline of the grammar as tables: what may come next, as far as a device can know it.

The grammar proper weighs fonts, free places and contrast, in Python. Its outline is a finite
automaton: the order of fields, the quoted strings letter by letter, the wished boxes. Whatever the
grammar lets through the outline lets through too, so an id that was chosen under the outline and
that the grammar allows is the id that the grammar would have had chosen. `sampling.engine` drafts
by the one and verifies by the other.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int32

from blueprint import vocab
from blueprint.schema import PAGE_UNIT_PX, Box

_BRANCHES = ("text", "shape", "picture", "end", "source:verbatim", "source:free", "style")
NUM_CLASSES = 1 + len(_BRANCHES)
_FIELDS = ("text", "source", "font", "weight", "align", "shape", "paint")
_START, _DONE = 0, 1


@functools.cache
def classes() -> Int32[np.ndarray, " V"]:
    """What each id is to a transition: 0, or 1 + its index among the ids that branch."""
    found = np.zeros(vocab.SIZE, np.int32)
    for i, name in enumerate(_BRANCHES):
        found[vocab.token(name)] = 1 + i
    return found


def _ids_of(rule: str) -> Sequence[int]:
    if rule in _FIELDS:
        return vocab.choices(rule)
    byte, letters = vocab.byte(0), range(vocab.byte(0), vocab.byte(0) + 256)
    return {
        "anything": range(vocab.SIZE),
        "number": range(vocab.number(0), vocab.number(1000) + 1),
        "hex": range(vocab.hex_digit(0), vocab.hex_digit(15) + 1),
        "element": [vocab.token(n) for n in ("text", "shape", "picture")],
        "element or end": [vocab.token(n) for n in ("text", "shape", "picture", "end")],
        "string": [*letters, vocab.token("line"), vocab.token("style")],
        "blank": [byte + 0x20, vocab.token("line")],
    }[rule]


_RULES = (
    "anything", "number", "hex", "element", "element or end", "string", "blank", *_FIELDS,
)  # fmt: skip


@functools.cache
def masks() -> Bool[np.ndarray, "M V"]:
    """The sets of ids that states allow, by their number."""
    found = np.zeros((len(_RULES), vocab.SIZE), bool)
    for row, rule in zip(found, _RULES, strict=True):
        row[list(_ids_of(rule))] = True
    return found


@dataclasses.dataclass(frozen=True)
class Draft:
    """A finite automaton over ids that starts in state 0.

    A state allows the ids of row `allowed` of `masks()`, or the one id `-1 - allowed`; an id of
    class c (`classes()`) leads to state `after[state, c]`.
    """

    allowed: Int32[np.ndarray, " S"]
    after: Int32[np.ndarray, "S C"]

    def step(self, state: int, token: int) -> int:
        """The state after an id."""
        return int(self.after[state, classes()[token]])

    def mask(self, state: int) -> Bool[np.ndarray, " V"]:
        """The ids that a state allows."""
        rule = int(self.allowed[state])
        return masks()[rule] if rule >= 0 else np.arange(vocab.SIZE) == -1 - rule


class _Builder:
    """States, added from the last of a chain to its first."""

    def __init__(self) -> None:
        self.allowed: list[int] = []
        self.after: list[list[int]] = []

    def state(self, rule: str | int, then: int, branches: Mapping[str, int] | None = None) -> int:
        """A new state that allows a rule's ids, or one id, and leads to `then`; its number."""
        self.allowed.append(_RULES.index(rule) if isinstance(rule, str) else -1 - rule)
        known = branches or {}
        self.after.append([then, *(known.get(name, then) for name in _BRANCHES)])
        return len(self.allowed) - 1

    def chain(self, rules: Sequence[str | int], then: int) -> int:
        """States one after another; the first of them."""
        for rule in reversed(rules):
            then = self.state(rule, then)
        return then

    def string(self, then: int) -> int:
        """Any string and the `<style>` that closes it."""
        here = len(self.allowed)
        return self.state("string", here, {"style": then})

    def quote(self, quote: str, then: int) -> int:
        """A string letter by letter, any blank of which may be a line break."""
        rules: list[str | int] = []
        for i, word in enumerate(quote.split(" ")):
            rules += ["blank"] * (i > 0) + vocab.string(word)
        return self.chain([*rules, vocab.token("style")], then)


def _numbers(box: Box | None) -> list[str | int]:
    if box is None:
        return ["number"] * 4
    return [vocab.number(n) for n in (box.left, box.top, box.width, box.height)]


def outline(
    *,
    page_px: tuple[int, int] | None = None,
    quotes: Sequence[str] | None = None,
    boxes: Mapping[str, Box] | None = None,
) -> Draft:
    """The outline of `Grammar` of a page of this size, with these quotes still to be copied (None:
    any string may be verbatim) and these boxes of quoted strings."""
    make, pending, boxes = _Builder(), list(quotes or ()), boxes or {}
    make.state(vocab.token("v1"), _START)  # where it leads is known at the end
    make.state("anything", _DONE)
    type_ = ["font", "weight", "number", "align"]
    after_quote = None
    for left in range(len(pending) + 1):  # from the last element to the first
        ended = left == 0
        choice = make.state("element or end" if ended else "element", _DONE)
        ink = make.chain(["hex"] * 3, choice)
        tail = make.chain([*type_, *_numbers(None)], ink)
        own = make.string(tail)
        verbatim = own
        if not ended and after_quote is not None:
            quote = pending[-left]
            ink = make.chain(["hex"] * 3, after_quote)
            verbatim = make.quote(quote, make.chain([*type_, *_numbers(boxes.get(quote))], ink))
        source = make.state("source", own, {"source:verbatim": verbatim, "source:free": own})
        text = make.state("text", source)
        shape = make.chain(["shape", "paint", *["hex"] * 3, *_numbers(None)], choice)
        picture = make.string(make.chain(_numbers(None), choice))
        for name, then in {"text": text, "shape": shape, "picture": picture, "end": _DONE}.items():
            make.after[choice][1 + _BRANCHES.index(name)] = then
        after_quote = choice
    assert after_quote is not None
    sides = [s // PAGE_UNIT_PX if s is not None else None for s in page_px or (None, None)]
    size = [vocab.number(n) if n is not None else "number" for n in sides]
    first = make.chain([*size, *["hex"] * 3], after_quote)
    make.after[_START] = [first] * NUM_CLASSES
    return Draft(np.array(make.allowed, np.int32), np.array(make.after, np.int32))
