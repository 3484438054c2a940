"""Which ids may come next: every sequence the grammar lets through is a valid blueprint.

With `quotes` it is also the copy automaton: a `verbatim` text can only spell the next pending quote
(a blank may become a line break), and the page cannot end while one is pending. With `max_ids` an
id is allowed only if the shortest completion still fits, so that every walk ends valid in time.
With a `Fitting` page the words also fit their boxes, lie free, and stand out from their ground.
"""

from __future__ import annotations

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


def _number_of(allowed: np.ndarray) -> Walk:
    """One of the numbers that a bool [1001] allows."""
    token = yield mask_of(vocab.number(int(n)) for n in np.nonzero(allowed)[0])
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


class Grammar:
    """An automaton over ids. Ask `allowed`, then `advance` by one of them, until `finished`."""

    def __init__(
        self,
        *,
        page_px: tuple[int, int] | None = None,
        quotes: Sequence[str] | None = None,
        max_ids: int | None = None,
        room: Anywhere | None = None,
    ) -> None:
        self.pending = list(quotes or ())
        self._copying = quotes is not None
        self._page_px = page_px
        self._room = room or Anywhere()
        self._left = 10**9 if max_ids is None else max_ids
        shortest = 6 + self._reserve()
        if shortest > self._left:
            raise ValueError(
                f"the prompt's {len(self.pending)} quoted strings need at least {shortest} ids "
                f"and the planner has {max_ids}: quote less, or raise its max_length"
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
        for side in self._page_px or (None, None):
            units = side // PAGE_UNIT_PX if side is not None else None
            yield _numbers(units or 1, units or 1000)
        self._room.start((yield from self._colour(self._room.paints())))
        while True:
            after = self._left - self._reserve()
            options = [] if self.pending else [_END]
            if self.pending or after >= self._free_text_ids():
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

    @staticmethod
    def _free_text_ids() -> int:
        return _TEXT_HEAD_IDS + _LONGEST_CHARACTER + _TEXT_TAIL_IDS

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
        if self._left + 2 - self._reserve() >= self._free_text_ids():
            sources.append(_FREE)
        source = yield _only(*sources)
        frame = None
        if source == _VERBATIM and self._copying:
            frame = self._room.frame(self.pending[0])
            lines = yield from self._quote(frame)
        else:
            lines = yield from self._string(tail_ids=_TEXT_TAIL_IDS, lines=True)
        font = yield from _value_of("font")
        weight = yield from _value_of("weight")
        size = yield from _number_of(self._room.sizes(lines, font, weight, frame))
        align = yield from _value_of("align")
        extent = self._room.extent(lines, font, weight, size)
        box = yield from (self._box(extent, covering=True) if frame is None else self._at(frame))
        colour = yield from self._colour(self._room.inks(box))
        said = vocab.name(source).partition(":")[2]
        return Text(kind, tuple(lines), box, font, weight, size, colour, align, said)  # type: ignore[arg-type]  # a choice of the vocab

    def _quote(self, frame: Box | None) -> Walk:
        """The next quote, broken to fit its frame if it has one; its lines."""
        quote = self.pending.pop(0)
        words, lines = quote.split(" "), [""]
        for i, word in enumerate(words):
            if i:
                full = self._room.must_break(lines[-1], word, frame)
                token = yield _only(_LINE) if full else _only(_BLANK, _LINE)
                if token == _LINE:
                    lines.append("")
                else:
                    lines[-1] += " "
            for token in vocab.string(word):
                yield _only(token)
            lines[-1] += word
        yield _only(_STYLE)
        return lines

    def _string(self, *, tail_ids: int, lines: bool) -> Walk:
        """Printable characters, no blank at either end of a line, and the `<style>` that closes
        them; the lines they make."""
        after_letter = False
        made = [bytearray()]
        while True:
            spare = self._left - tail_ids - self._reserve()
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
            after_letter = True

    @staticmethod
    def _colour(allowed: np.ndarray) -> Walk:
        """Three digits of one of the colours that a bool [16 16 16] allows."""
        colour = "#"
        for _ in range(3):
            open_digits = allowed.reshape(16, -1).any(axis=1)
            token = yield mask_of(vocab.hex_digit(int(n)) for n in np.nonzero(open_digits)[0])
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
