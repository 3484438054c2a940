"""A page being filled from the top: words that fit their place, in lines that come out even."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from blueprint.check import NEARLY_MILLI
from blueprint.schema import Shape, Text
from blueprint.typeset import INSET_PX, PITCH
from train.data.posters.canvas import Canvas, Look
from train.data.posters.scenes import PHOTOS, PRODUCTS

BARE = 0.3  # of the page: as much is filled with a picture
TRIES = 60  # words drawn before a room is too narrow for any


@dataclasses.dataclass(frozen=True)
class Area:
    """A part of the page, in pixels from its top left corner."""

    left: float
    top: float
    right: float
    foot: float

    @property
    def width(self) -> float:
        """From side to side."""
        return self.right - self.left

    def inset(self, x: float, y: float) -> Area:
        """The area within bare edges."""
        return Area(self.left + x, self.top + y, self.right - x, self.foot - y)

    def below(self, top: float) -> Area:
        """The rest of the area from `top` on."""
        return dataclasses.replace(self, top=top)

    def columns(self, count: int, gap: float) -> list[Area]:
        """Equal columns side by side."""
        pitch = (self.width + gap) / count
        lefts = [round(self.left + i * pitch) for i in range(count)]
        return [dataclasses.replace(self, left=x, right=x + pitch - gap) for x in lefts]


class Sheet:
    """A page being filled: `num_left` words are still to be said, in type of `body` pixels."""

    def __init__(self, canvas: Canvas, body: int, num_words: int) -> None:
        self.canvas, self.body, self.num_left = canvas, body, num_words
        self.large = round(body * canvas.rng.uniform(1.2, 1.7))
        self.margin = max(canvas.u(6), round(body / 2))
        edge = self.margin
        self.page = Area(edge, edge, canvas.width - edge, canvas.height - edge)

    @property
    def foot(self) -> float:
        """The foot of the lowest text, in pixels."""
        feet = [e.box.top + e.box.height for e in self.canvas.elements if isinstance(e, Text)]
        return max(feet, default=0) * self.canvas.height / 1000

    def illustrated(self, edge: float = 0.0) -> str:
        """Put a picture where a third of the page or more is still bare, within further bare edges,
        and say of what."""
        canvas, area = self.canvas, self.page.inset(edge / 2, edge / 2)
        area = area.below(max(round(self.foot) + self.margin, area.top))
        if area.foot - area.top < BARE * canvas.height:
            return ""
        caption = canvas.rng.choice((*PHOTOS, *PRODUCTS))
        canvas.picture((area.left, area.top, area.width, area.foot - area.top), caption)
        return f" with a picture of a {caption}"

    def pitch(self, size: int) -> int:
        """From one baseline to the next."""
        return round(size * PITCH)

    def ink(self, on: str) -> str:
        """A colour that can be read on another."""
        return self.canvas.palette.ink(on, self.canvas.rng)

    def _drawn(self, num_words: int, room: float, look: Look, size: int) -> list[str]:
        """Words that each fit the room: too wide ones are passed over, not cut."""
        canvas, found = self.canvas, []
        width = canvas.face(look).font(look.weight, size).getlength
        for _ in range(TRIES):
            word = canvas.phrase(1)
            capitals = look.font != "script" or word.isupper()
            if len(found) < num_words and capitals and width(word) <= room - 2 * INSET_PX:
                found.append(word)
            if len(found) == num_words:
                break
        return found

    def say(
        self, kind: str, num_words: int, area: Area, look: Look, *, most_lines: int = 99
    ) -> float:
        """Set up to so many words at an area's top, in the look's pixels, and return their foot;
        where not even one fits, set nothing and return the top."""
        size = int(look.size)
        said = self._drawn(min(num_words, self.num_left), area.width, look, size)
        while said:
            lines = self.canvas.broken(said, area.width, look, size)
            if lines and len(lines) <= most_lines:
                foot = self._set(kind, lines, area, look)
                if foot > area.top:
                    return foot
            said.pop()
        return area.top

    def put(self, kind: str, string: str, area: Area, look: Look) -> float:
        """Set one line as it is, if there is room for it and words are left; returns its foot."""
        face = self.canvas.face(look).font(look.weight, int(look.size))
        fits = face.getlength(string) <= area.width - 2 * INSET_PX
        return self._set(kind, (string,), area, look) if fits and self.num_left else area.top

    def _set(self, kind: str, lines: tuple[str, ...], area: Area, look: Look) -> float:
        size = int(look.size)
        if area.top + self.pitch(size) * len(lines) > area.foot:
            return area.top
        self.num_left -= sum(len(line.split()) for line in lines)
        left = self._aligned(area.left) if look.align == "left" else area.left
        return self.canvas.set_lines(kind, lines, (left, area.top, area.width), look, size)

    def _aligned(self, left: float) -> float:
        """A left edge, or that of a text whose edge is nearly the same."""
        texts = [e for e in self.canvas.elements if isinstance(e, Text) and e.align == "left"]
        edges = {text.box.left * self.canvas.width / 1000 for text in texts}
        nearest = min(edges, key=lambda edge: abs(edge - left), default=left)
        near = abs(nearest - left) * 1000 / self.canvas.width <= NEARLY_MILLI + 1
        return round(nearest) if near else left

    def wide(self, string: str, look: Look) -> int:
        """How wide a string is set, bare ends included."""
        face = self.canvas.face(look).font(look.weight, int(look.size))
        return math.ceil(face.getlength(string)) + 2 * INSET_PX + 1

    def paragraphs(self, area: Area, look: Look, *, most: int) -> float:
        """Running text of at most so many words; returns its foot."""
        end, top = max(self.num_left - most, 0), area.top
        while self.num_left > end:
            num_words = min(self.canvas.rng.randint(6, 16), self.num_left - end)
            foot = self.say("body", num_words, area.below(top), look)
            if foot == top:
                break
            top = foot + self.body // 2
        return top

    def rows(
        self, area: Area, high: float, row: Callable[[Area], object], *, most: int = 999
    ) -> None:
        """Rows of one height down an area, until they have said so many words or say no more."""
        top, before, end = area.top, -1, self.num_left - most
        while self.num_left > max(end, 0) and top + high <= area.foot and self.num_left != before:
            before = self.num_left
            row(dataclasses.replace(area, top=top, foot=top + high))
            top += high

    def lists(self, columns: Sequence[Area], high: float, row: Callable[[Area], object]) -> None:
        """Rows down several columns, about as many words in each."""
        for i, column in enumerate(columns):
            self.rows(column, high, row, most=math.ceil(self.num_left / (len(columns) - i)))

    def heading(self, ground: str, area: Area, look: Look, *, whole: bool = False) -> float:
        """A title of one to three words on a band of colour; returns the band's foot."""
        canvas, place = self.canvas, len(self.canvas.elements)
        canvas.shape("rectangle", (0, 0, 1, 1), ground)
        foot = self.say("title", canvas.rng.choice((1, 2, 2, 3)), area, look)
        if foot == area.top and not whole:
            del canvas.elements[place:]
            return area.top
        foot += self.margin / 2
        box = canvas.box(0, 0, canvas.width, foot)
        canvas.elements[place] = Shape("rectangle", box, ground)
        return round(foot + self.margin / 2)

    def title(self, ground: str, *, align: str = "left", font: str | None = None) -> Look:
        """How a title looks on a ground."""
        return Look(self.large, self.ink(ground), "bold", align, font)

    def text(self, ground: str, weight: str = "regular", align: str = "left") -> Look:
        """How running text looks on a ground."""
        return Look(self.body, self.ink(ground), weight, align)

    def feasible(self, area: Area, em: float, most: int) -> int:
        """How many columns of at least so many type sizes an area has, from 1 to `most`."""
        return max(min(int(area.width // (em * self.body)), most), 1)
