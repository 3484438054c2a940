"""Which ids may come next: every sequence the grammar lets through is a valid blueprint.

With `quotes` it is also the copy automaton: a `verbatim` text can only spell the next pending quote
(a blank may become a line break), and the page cannot end while one is pending. With `max_ids` an
id is allowed only if the shortest completion still fits, so that every walk ends valid in time.
With a `Fitting` page the words also fit their boxes, lie free, and stand out from their ground.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import numpy as np

from blueprint import vocab
from blueprint.fitting import Anywhere, Extent, covers
from blueprint.schema import PAGE_UNIT_PX, Box, Picture, Shape, Text

Mask = bytes
Walk = Generator[Mask, int, Any]  # yields masks, is sent ids, returns what they say

_BLANK = vocab.byte(0x20)
_LINE, _STYLE, _END = (vocab.token(n) for n in ("line", "style", "end"))
_TEXT, _SHAPE, _PICTURE = (vocab.token(n) for n in ("text", "shape", "picture"))
_VERBATIM, _FREE = vocab.choices("source")
_TEXT_TAIL_IDS = 12  # style, font, weight, size, align, four of box, three of colour
_TEXT_HEAD_IDS = 3  # text, kind, source
_SHAPE_IDS = 10  # shape, kind, paint, three of colour, four of box
_PICTURE_TAIL_IDS = 5  # style, four of box
_LONGEST_CHARACTER = 4  # bytes of UTF-8


def mask_of(ids: Iterable[int]) -> Mask:
    """1 at each id, 0 elsewhere."""
    mask = bytearray(vocab.SIZE)
    for i in ids:
        mask[i] = 1
    return bytes(mask)


@functools.cache
def _only(*ids: int) -> Mask:
    return mask_of(ids)


@functools.cache
def _choices(field: str) -> Mask:
    return mask_of(vocab.choices(field))


@functools.cache
def _numbers(least: int, most: int) -> Mask:
    return mask_of(vocab.number(n) for n in range(least, most + 1))


def _span(first: int, allowed: np.ndarray) -> Mask:
    """1 at the ids from `first` on that a bool allows."""
    mask = bytearray(vocab.SIZE)
    mask[first : first + len(allowed)] = allowed.astype(np.uint8).tobytes()
    return bytes(mask)


def _number_of(allowed: np.ndarray) -> Walk:
    """One of the numbers that a bool [1001] allows."""
    token = yield _span(vocab.number(0), allowed)
    return token - vocab.number(0)


def _value_of(field: str) -> Walk:
    """One of a field's values."""
    token = yield _choices(field)
    return vocab.name(token).partition(":")[2]


@functools.cache
def _continuations() -> dict[bytes, tuple[int, ...]]:
    """For each proper prefix of a printable character's UTF-8, the bytes that may follow; blanks
    apart."""
    following: dict[bytes, set[int]] = {}
    for code in range(0x21, 0x110000):
        if chr(code).isprintable():
            data = chr(code).encode()
            for i in range(len(data)):
                following.setdefault(data[:i], set()).add(data[i])
    return {prefix: tuple(sorted(after)) for prefix, after in following.items()}


@functools.cache
def _characters(prefix: bytes, *others: int) -> Mask:
    return mask_of([*(vocab.byte(b) for b in _continuations()[prefix]), *others])


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a page may not exceed: its size (None for any), its ids, its letters (bytes of words,
    blanks apart), and the strings that it may have beside the quoted ones (None for any).

    Own texts come only while the page has fewer texts than `max_texts`, pending quotes counted, and
    those of a list but once. Quoted strings are never too many.
    """

    page_px: tuple[int, int] | None = None
    max_ids: int = 10**9
    max_letters: int = 10**9
    own_texts: tuple[str, ...] | None = None
    max_texts: int = 10**9


def num_letters(string: str) -> int:
    """Bytes of a string, blanks apart."""
    return len(string.replace(" ", "").encode())


class Grammar:
    """An automaton over ids. Ask `allowed`, then `advance` by one of them, until `finished`."""

    def __init__(
        self,
        limits: Limits = Limits(),  # a frozen value
        *,
        quotes: Sequence[str] | None = None,
        room: Anywhere | None = None,
    ) -> None:
        self.pending = list(quotes or ())
        self._copying = quotes is not None
        self._limits = limits
        self._room = room or Anywhere()
        self._left = limits.max_ids
        self._letters = limits.max_letters - sum(map(num_letters, self.pending))
        self._own_texts = limits.own_texts
        self._own_left = limits.max_texts - len(self.pending)
        shortest = 6 + self._reserve()
        asked = f"the prompt's {len(self.pending)} quoted strings"
        if shortest > self._left:
            raise ValueError(
                f"{asked} need at least {shortest} ids "
                f"and the planner has {self._left}: quote less, or raise its max_length"
            )
        if self._letters < 0:
            raise ValueError(
                f"{asked} have {-self._letters} letters more than the {limits.max_letters} that "
                "the decoder takes: quote less, or raise its conditioning.max_characters"
            )
        self._walk = self._page()
        self._allowed: Mask = next(self._walk)
        self.finished = False

    def allowed(self) -> Mask:
        """One byte an id, 1 where it may come next."""
        return self._allowed

    def advance(self, token: int) -> None:
        """Take one id; raises `ValueError` when it is not allowed here."""
        if self.finished or not self._allowed[token]:
            raise ValueError(f"{vocab.name(token)} is not allowed here")
        self._left -= 1
        try:
            self._allowed = self._walk.send(token)
        except StopIteration:
            self.finished = True
            self._allowed = bytes(vocab.SIZE)

    def _reserve(self) -> int:
        """Ids that the pending quotes and `<end>` still need."""
        each = _TEXT_HEAD_IDS + _TEXT_TAIL_IDS
        return 1 + sum(each + len(quote.encode()) for quote in self.pending)

    def _page(self) -> Walk:
        yield _only(vocab.token("v1"))
        for side in self._limits.page_px or (None, None):
            units = side // PAGE_UNIT_PX if side is not None else None
            yield _numbers(units or 1, units or 1000)
        self._room.start((yield from self._colour(self._room.paints())))
        while True:
            after = self._left - self._reserve()
            options = [] if self.pending else [_END]
            if self.pending or self._own_fits(after - _TEXT_HEAD_IDS - _TEXT_TAIL_IDS):
                options.append(_TEXT)
            if after >= _SHAPE_IDS:
                options.append(_SHAPE)
            if after >= 1 + _LONGEST_CHARACTER + _PICTURE_TAIL_IDS:
                options.append(_PICTURE)
            token = yield _only(*options)
            if token == _END:
                return
            element = {_TEXT: self._text, _SHAPE: self._shape, _PICTURE: self._picture}[token]
            self._room.place((yield from element()))

    def _own_fits(self, spare: int) -> bool:
        """Whether a text beside the quoted ones has room in so many ids and the letters left."""
        if self._own_left <= 0:
            return False
        if self._own_texts is None:
            return min(spare, self._letters) >= _LONGEST_CHARACTER
        return any(self._fits(text, spare) for text in self._own_texts)

    def _fits(self, text: str, spare: int) -> bool:
        return len(text.encode()) <= spare and num_letters(text) <= self._letters

    def _shape(self) -> Walk:
        kind = yield from _value_of("shape")
        paint = yield from _value_of("paint")
        colour = yield from self._colour(self._room.paints())
        drawn = Shape(kind, Box(0, 0, 1, 1), colour, paint)
        box = yield from self._box(Extent(), covering=covers(drawn))
        return Shape(kind, box, colour, paint)

    def _picture(self) -> Walk:
        (caption,) = yield from self._string(tail_ids=_PICTURE_TAIL_IDS, lines=False)
        box = yield from self._box(Extent(), covering=True)
        return Picture(box, caption)

    def _text(self) -> Walk:
        kind = yield from _value_of("text")
        sources = []
        if self.pending or not self._copying:
            sources.append(_VERBATIM)
        # two ids of the head, text and kind, are already spent
        spare = self._left + 2 - self._reserve() - _TEXT_HEAD_IDS - _TEXT_TAIL_IDS
        if self._own_fits(spare):
            sources.append(_FREE)
        source = yield _only(*sources)
        frame = None
        if source == _VERBATIM and self._copying:
            frame = self._room.frame(self.pending[0])
            lines = yield from self._quote(frame)
        elif self._own_texts is not None:
            lines = yield from self._own(self._own_texts)
        else:
            lines = yield from self._string(tail_ids=_TEXT_TAIL_IDS, lines=True)
        font = yield from _value_of("font")
        weight = yield from _value_of("weight")
        size = yield from _number_of(self._room.sizes(lines, font, weight, frame))
        align = yield from _value_of("align")
        extent = self._room.extent(lines, font, weight, size)
        box = yield from (self._box(extent, covering=True) if frame is None else self._at(frame))
        colour = yield from self._colour(self._room.inks(box, len(lines)))
        self._own_left -= source == _FREE
        said = vocab.name(source).partition(":")[2]
        return Text(kind, tuple(lines), box, font, weight, size, colour, align, said)  # type: ignore[arg-type]  # a choice of the vocab

    def _quote(self, frame: Box | None) -> Walk:
        """The next quote, broken where the room lets it; its lines."""
        quote = self.pending.pop(0)
        words, lines = quote.split(" "), [""]
        breaks = self._room.breaks(quote, frame)
        for i, word in enumerate(words):
            if i:
                token = yield _only(*[_BLANK] * breaks.may_join, *[_LINE] * breaks.may_break)
                breaks.take(ends=token == _LINE)
                if token == _LINE:
                    lines.append("")
                else:
                    lines[-1] += " "
            for token in vocab.string(word):
                yield _only(token)
            lines[-1] += word
        yield _only(_STYLE)
        return lines

    def _own(self, choices: Sequence[str]) -> Walk:
        """One of the own texts that still fit, its blanks perhaps broken; its lines."""
        spare = self._left - _TEXT_TAIL_IDS - self._reserve()
        texts = [text.encode() for text in choices if self._fits(text, spare)]
        said, lines = b"", [bytearray()]
        while True:
            open_texts = [text for text in texts if text.startswith(said)]
            options = {vocab.byte(text[len(said)]) for text in open_texts if len(text) > len(said)}
            options |= {_STYLE} if said in open_texts else set()
            options |= {_LINE} if _BLANK in options else set()
            token = yield _only(*sorted(options))
            if token == _STYLE:
                self._letters -= num_letters(said.decode())
                self._own_texts = tuple(text for text in choices if text.encode() != said)
                return [line.decode() for line in lines]
            said += b" " if token == _LINE else bytes([token - vocab.byte(0)])
            if token == _LINE:
                lines.append(bytearray())
            else:
                lines[-1] += said[-1:]

    def _string(self, *, tail_ids: int, lines: bool) -> Walk:
        """Printable characters, no blank at either end of a line, and the `<style>` that closes
        them; the lines they make."""
        after_letter = False
        made = [bytearray()]
        while True:
            spare = self._left - tail_ids - self._reserve()
            spare = min(spare, self._letters) if lines else spare
            others = [_STYLE] if after_letter else []
            if after_letter and spare >= 1 + _LONGEST_CHARACTER:
                others += [_BLANK, _LINE] if lines else [_BLANK]
            fits = not after_letter or spare >= _LONGEST_CHARACTER
            token = yield _characters(b"", *others) if fits else _only(*others)
            if token == _STYLE:
                return [line.decode() for line in made]
            if token in (_LINE, _BLANK):
                # a blank may be followed by more blanks only when a letter still ends the line
                after_letter = False
                if token == _LINE:
                    made.append(bytearray())
                else:
                    made[-1] += b" "
                continue
            prefix = bytes([token - vocab.byte(0)])
            while prefix in _continuations():
                token = yield _characters(prefix)
                prefix += bytes([token - vocab.byte(0)])
            made[-1] += prefix
            self._letters -= len(prefix) if lines else 0
            after_letter = True

    @staticmethod
    def _colour(allowed: np.ndarray) -> Walk:
        """Three digits of one of the colours that a bool [16 16 16] allows."""
        colour = "#"
        for _ in range(3):
            open_digits = allowed.reshape(16, -1).any(axis=1)
            token = yield _span(vocab.hex_digit(0), open_digits)
            digit = token - vocab.hex_digit(0)
            allowed = allowed[digit]
            colour += f"{digit:x}"
        return colour

    @staticmethod
    def _at(frame: Box) -> Walk:
        """Just this box."""
        for n in (frame.left, frame.top, frame.width, frame.height):
            yield _only(vocab.number(n))
        return frame

    def _box(self, extent: Extent, *, covering: bool) -> Walk:
        """A box that the room has; `covering` ones keep off the words."""
        room = self._room
        left = yield from _number_of(room.lefts(extent, covering=covering))
        top = yield from _number_of(room.tops(extent, left, covering=covering))
        width = yield from _number_of(room.widths(extent, left, top, covering=covering))
        narrow = Box(left, top, width, 1)
        height = yield from _number_of(room.heights(extent, narrow, covering=covering))
        return Box(left, top, width, height)
