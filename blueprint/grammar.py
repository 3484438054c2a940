"""Which ids may come next: every sequence the grammar lets through is a valid blueprint.

With `quotes` it is also the copy automaton: a `verbatim` text can only spell the next pending quote
(a blank may become a line break), and the page cannot end while one is pending. With `max_ids` an
id is allowed only if the shortest completion still fits, so that every walk ends valid in time.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable, Sequence

from blueprint import vocab
from blueprint.schema import PAGE_UNIT_PX

Mask = bytes
Walk = Generator[Mask, int, None]

_BLANK = vocab.byte(0x20)
_LINE, _STYLE, _END = (vocab.token(n) for n in ("line", "style", "end"))
_TEXT, _SHAPE, _PICTURE = (vocab.token(n) for n in ("text", "shape", "picture"))
_VERBATIM, _FREE = vocab.choices("source")
_TEXT_TAIL_IDS = 12  # style, font, weight, size, three of colour, align, four of box
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


_HEX = mask_of(vocab.hex_digit(n) for n in range(16))


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
    ) -> None:
        self.pending = list(quotes or ())
        self._copying = quotes is not None
        self._page_px = page_px
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
        yield from self._colour()
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
            if token == _TEXT:
                yield from self._text()
            elif token == _SHAPE:
                yield _choices("shape")
                yield _choices("paint")
                yield from self._colour()
                yield from self._box()
            else:
                yield from self._string(tail_ids=_PICTURE_TAIL_IDS, lines=False)
                yield from self._box()

    @staticmethod
    def _free_text_ids() -> int:
        return _TEXT_HEAD_IDS + _LONGEST_CHARACTER + _TEXT_TAIL_IDS

    def _text(self) -> Walk:
        yield _choices("text")
        sources = []
        if self.pending or not self._copying:
            sources.append(_VERBATIM)
        # two ids of the head, text and kind, are already spent
        if self._left + 2 - self._reserve() >= self._free_text_ids():
            sources.append(_FREE)
        source = yield _only(*sources)
        if source == _VERBATIM and self._copying:
            yield from self._quote()
        else:
            yield from self._string(tail_ids=_TEXT_TAIL_IDS, lines=True)
        yield _choices("font")
        yield _choices("weight")
        yield _numbers(1, 1000)
        yield from self._colour()
        yield _choices("align")
        yield from self._box()

    def _quote(self) -> Walk:
        for token in vocab.string(self.pending.pop(0)):
            yield _only(token, _LINE) if token == _BLANK else _only(token)
        yield _only(_STYLE)

    def _string(self, *, tail_ids: int, lines: bool) -> Walk:
        """Printable characters, no blank at either end of a line, and the `<style>` that closes
        them."""
        after_letter = False
        while True:
            spare = self._left - tail_ids - self._reserve()
            others = [_STYLE] if after_letter else []
            if after_letter and spare >= 1 + _LONGEST_CHARACTER:
                others += [_BLANK, _LINE] if lines else [_BLANK]
            fits = not after_letter or spare >= _LONGEST_CHARACTER
            token = yield _characters(b"", *others) if fits else _only(*others)
            if token == _STYLE:
                return
            if token in (_LINE, _BLANK):
                # a blank may be followed by more blanks only when a letter still ends the line
                after_letter = False
                continue
            prefix = bytes([token - vocab.byte(0)])
            while prefix in _continuations():
                token = yield _characters(prefix)
                prefix += bytes([token - vocab.byte(0)])
            after_letter = True

    @staticmethod
    def _colour() -> Walk:
        for _ in range(3):
            yield _HEX

    @staticmethod
    def _box() -> Walk:
        left = (yield _numbers(0, 999)) - vocab.number(0)
        top = (yield _numbers(0, 999)) - vocab.number(0)
        yield _numbers(1, 1000 - left)
        yield _numbers(1, 1000 - top)
