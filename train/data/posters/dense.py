"""Pages of much text: leaflets, programmes, articles, tables, inboxes, price lists and catalogues.

A page is filled in order until it has said its words or is full, with every line measured in its
own typeface: running text of one size, titles larger. How many words there is room for is a matter
of area: in 12 px type about 10 on a page of 128 px, 45 on one of 256 px and 150 to 200 on one of
512 px.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

from blueprint.schema import Element, Shape, Text
from train.data.posters import words
from train.data.posters.canvas import Canvas, Look
from train.data.posters.filling import Area, Sheet
from train.data.posters.scenes import PHOTOS, PRODUCTS

WORD_EM = 10.0  # square type sizes that a word takes, its share of everything bare included
MIN_COLUMN_EM = 8.5  # narrower columns of running text have one or two words a line
MIN_SCRIPT_PX = 20  # and in capitals: the script faces are not read smaller, nor their case
OPENING = 8 * 60 + 15  # when a programme begins, in minutes after midnight
SHRINK = 0.88  # of the type size, when the words do not all go onto the page


def leaflet(s: Sheet) -> str:
    """A title over columns of short paragraphs."""
    c, r = s.canvas, s.canvas.rng
    p, area = c.palette, s.page
    script = s.large >= MIN_SCRIPT_PX and r.random() < 0.3
    align = r.choice(("left", "center"))
    look = s.title(p.accent, align=align, font="script" if script else None)
    area = area.below(s.heading(p.accent, area, look))
    most = min(s.feasible(area, MIN_COLUMN_EM, 3), 1 + s.num_left // 24)
    columns = area.columns(r.randint(1, most) if s.num_left < 60 else most, 2 * s.margin)
    ink = s.text(p.ground)
    for i, column in enumerate(columns):
        s.paragraphs(column, ink, most=math.ceil(s.num_left / (len(columns) - i)))
    for column in columns[1:] if s.foot > area.top else []:
        c.shape("line", (column.left - s.margin, area.top, 1, s.foot - area.top), p.line)
    return f"leaflet{s.illustrated()}"


def programme(s: Sheet) -> str:
    """A title over rows of a time and what happens then."""
    c, r = s.canvas, s.canvas.rng
    p = c.palette
    area = s.page.below(s.heading(p.accent, s.page, s.title(p.accent)))
    hour, item = s.text(p.ground, "bold"), s.text(p.ground)
    first = s.wide("22:55", hour) + s.body // 2
    columns = area.columns(s.feasible(area, 14, 2) if s.num_left > 30 else 1, 2 * s.margin)
    minutes = itertools.accumulate(
        (r.choice((15, 20, 30)) for _ in itertools.count()), initial=OPENING
    )

    def row(line: Area) -> None:
        minute = next(minutes) % (24 * 60)
        s.put("label", f"{minute // 60}:{minute % 60:02d}", line, hour)
        where = dataclasses.replace(line, left=round(line.left + first))
        s.say("body", r.randint(1, 5), where, item, most_lines=1)
        c.shape("line", (line.left, line.foot - 2, line.width, 1), p.line)

    s.lists(columns, s.pitch(s.body) + max(s.body // 2, 3), row)
    return f"event programme{s.illustrated()}"


def _bar(s: Sheet) -> Area:
    """The strip along the top of a screen, with an icon and a title; what is left of the page."""
    c, p = s.canvas, s.canvas.palette
    look, high = s.title(p.accent), s.pitch(s.large)
    at = dataclasses.replace(s.page, top=s.margin / 2, left=s.margin + 1.4 * s.large)
    foot = s.heading(p.accent, at, look, whole=True)
    icon = c.rng.choice(("menu", "arrow", "home", "bell", "search", "user"))
    side = round(0.8 * s.large)
    if foot < high:  # no title had room
        return s.page.below(foot)
    c.shape(icon, (s.margin, s.margin / 2 + (high - side) / 2, side, side), look.colour)
    return s.page.below(foot)


def article(s: Sheet) -> str:
    """A screen of running text on a card."""
    c, r = s.canvas, s.canvas.rng
    p, whole = c.palette, _bar(s)
    card = len(c.elements)
    c.shape("rectangle", (0, 0, 1, 1), p.card)
    area = whole.inset(s.margin, s.margin)
    head, ink = s.text(p.card, "bold"), s.text(p.card)
    if s.num_left > 4:
        foot = s.say("subtitle", r.randint(2, 4), area, head)
        area = area.below(foot + s.body // 2)
    most = min(s.feasible(area, MIN_COLUMN_EM, 2), 1 + s.num_left // 40)
    columns = area.columns(most, 2 * s.margin)
    for i, column in enumerate(columns):
        s.paragraphs(column, ink, most=math.ceil(s.num_left / (len(columns) - i)))
    foot = min(max(s.foot + s.margin, area.top + s.margin), whole.foot)
    box = c.box(whole.left, whole.top, whole.width, foot - whole.top)
    c.elements[card] = Shape("rectangle", box, p.card)
    return "article screen"


def table(s: Sheet) -> str:
    """A screen with a table: a head, then rows of a word and of words or figures."""
    c, r = s.canvas, s.canvas.rng
    p, area = c.palette, _bar(s)
    columns = area.columns(min(s.feasible(area, 5.5, 5), max(s.num_left // 2, 1)), s.body)
    kinds = ["word", *(r.choice(("word", "number", "price")) for _ in columns[1:])]
    high = s.pitch(s.body) + max(s.body // 2, 4)
    colours = iter([p.line, *[p.card, p.ground] * 200])

    def row(line: Area) -> None:
        ground = next(colours)
        stripe = line.inset(-s.margin / 2, 0)
        c.shape("rectangle", (stripe.left, line.top, stripe.width, high), ground)
        heads = ground is p.line
        ink, weight = s.ink(ground), "bold" if heads else "regular"
        top = line.top + round((high - s.pitch(s.body)) / 2)
        for column, kind in zip(columns, kinds, strict=True):
            look = Look(s.body, ink, weight, "left" if kind == "word" else "right")
            cell = dataclasses.replace(column, top=top, foot=line.foot)
            if kind == "word" or heads:
                s.say("label", 1, cell, look)
            else:
                figure = words.price(r) if kind == "price" else f"{r.randint(2, 999)}"
                s.put("price", figure, cell, look)

    s.rows(area, high, row)
    return "table screen"


def inbox(s: Sheet) -> str:
    """A screen of messages: a face, who wrote, and the beginning of what."""
    c, r = s.canvas, s.canvas.rng
    p, area = c.palette, _bar(s)
    who, what = s.text(p.ground, "bold"), s.text(p.ground)
    line_px = s.pitch(s.body)
    lines = 3 if s.feasible(area, 24, 1) and r.random() < 0.4 else 2
    side = line_px * 1.4

    def row(at: Area) -> None:
        text = dataclasses.replace(at, left=round(at.left + side + s.body * 0.7))
        foot = s.say("label", r.choice((1, 2)), text, who, most_lines=1)
        foot = s.say("body", r.randint(3, 14), text.below(foot), what, most_lines=lines - 1)
        if foot > at.top:
            c.shape("ellipse", (at.left, at.top + line_px * 0.3, side, side), p.accent)
            c.shape("line", (at.left, at.foot - line_px * 0.3, at.width, 1), p.line)

    s.rows(area, (lines + 0.6) * line_px, row)
    return "inbox screen"


def price_list(s: Sheet) -> str:
    """What there is, each with its price, in one or two columns."""
    c, r = s.canvas, s.canvas.rng
    p = c.palette
    ground = p.card if r.random() < 0.5 else p.ground
    if ground == p.card:
        inner = s.page.inset(-s.margin / 2, -s.margin / 2)
        c.shape("rectangle", (inner.left, inner.top, inner.width, inner.foot - inner.top), ground)
    area = s.page.inset(s.margin / 2, 0)
    head = s.say("title", r.choice((1, 2, 2)), area, s.title(ground, align="center"))
    area = area.below(head + s.body // 2)
    name, cost = s.text(ground), s.text(ground, "bold", "right")
    last = s.wide("$88.88", cost) + s.body // 2
    columns = area.columns(s.feasible(area, 14, 2) if s.num_left > 30 else 1, 3 * s.margin)

    def row(line: Area) -> None:
        thing = dataclasses.replace(line, right=line.right - last)
        s.say("label", r.randint(1, 4), thing, name, most_lines=1)
        s.put("price", words.price(r), line, cost)

    s.lists(columns, s.pitch(s.body) + max(s.body // 3, 2), row)
    return f"price list{s.illustrated(2 * s.margin)}"


def details(s: Sheet) -> str:
    """A product in words: a picture, a name, a price, then points and paragraphs."""
    c, r = s.canvas, s.canvas.rng
    p, area = c.palette, s.page
    caption = r.choice((*PHOTOS, *PRODUCTS))
    ratio = s.num_left * WORD_EM * s.body**2 / (c.width * c.height)
    if ratio < 0.75:  # else the words need the whole page
        high = (c.height - 2 * s.margin) * min(0.8 * (1 - ratio), 0.5)
        c.picture((area.left, area.top, area.width, high), caption)
        area = area.below(round(area.top + high + s.body / 2))
    foot = s.say("title", r.choice((1, 2, 2)), area, s.title(p.ground))
    foot = s.put("price", words.price(r), area.below(foot), s.text(p.ground, "bold"))
    area, ink = area.below(foot + s.body // 3), s.text(p.ground)
    columns = area.columns(s.feasible(area, 11, 2) if s.num_left > 40 else 1, 2 * s.margin)
    dot, indent = max(round(s.body * 0.4), 2), s.body
    for i, column in enumerate(columns):
        end, top = s.num_left - math.ceil(s.num_left / (len(columns) - i)), column.top
        while s.num_left > end:
            at = dataclasses.replace(column, left=round(column.left + indent), top=top)
            foot = s.say("body", min(r.randint(3, 9), s.num_left - end), at, ink)
            if foot == top:
                break
            middle = top + s.pitch(s.body) / 2
            c.shape("ellipse", (column.left, middle - dot / 2, dot, dot), p.accent)
            top = foot + s.body // 3
    return f"product details page for a {caption}"


def catalogue(s: Sheet) -> str:
    """A grid of cards, each a picture, a name and a price."""
    c, r = s.canvas, s.canvas.rng
    p = c.palette
    foot = s.say("title", r.choice((1, 2, 2)), s.page, s.title(p.ground))
    area = s.page.below(foot + s.body // 2)
    columns = area.columns(min(s.feasible(area, 7.5, 4), max(s.num_left // 3, 1)), s.margin)
    name, cost = s.text(p.card), s.text(p.card, "bold")
    text_px, wide = 3 * s.pitch(s.body) + s.body, columns[0].width
    num_rows = max(math.ceil(s.num_left / 4 / len(columns)), 1)
    high = max((area.foot - area.top) / num_rows, text_px + 1.5 * s.body)
    high = min(high, 0.75 * wide + text_px, area.foot - area.top)

    def row(line: Area) -> None:
        for column in columns:
            if not s.num_left:
                return
            card = dataclasses.replace(column, top=line.top, foot=line.foot - s.margin / 2)
            kind = "rounded" if len(columns) > 1 else "rectangle"
            c.shape(kind, (card.left, card.top, card.width, card.foot - card.top), p.card)
            text = card.inset(s.body // 2, 0)
            tall = max(card.foot - card.top - text_px, 2)
            if tall > s.body:
                caption = r.choice((*PHOTOS, *PRODUCTS))
                c.picture((text.left, card.top + s.body // 2, text.width, tall), caption)
                text = text.below(round(card.top + tall + s.body * 0.75))
            else:
                text = text.below(round(card.top + s.body / 4))
            under = s.say("label", r.randint(1, 4), text, name, most_lines=2)
            s.put("price", words.price(r), text.below(under), cost)

    s.rows(area, high, row)
    return "shop catalogue"


Scene = Callable[[Sheet], str]
DENSE: dict[str, tuple[Scene, ...]] = {
    "poster": (leaflet, programme),
    "mockup": (article, table, inbox),
    "shop": (price_list, details, catalogue),
}


def _sizes(c: Canvas, num_words: int) -> list[int]:
    """Type sizes to try: first one as large as the words may have, or half of it, then smaller
    ones."""
    least, most = c.style.body_px
    room = int(math.sqrt(c.width * c.height / (WORD_EM * num_words)))
    most = max(min(most, room), least)
    size = c.rng.randint(max(least, most // 2), most)
    sizes = [size]
    while size > least:
        size = max(min(int(size * SHRINK), size - 1), least)
        sizes.append(size)
    return sizes


def compose(c: Canvas, domain: str) -> str:
    """Lay out a page of the canvas's style and say what it is called.

    Scenes are tried in an order of the page's own and in smaller and smaller type, until one says
    all the words; else it is the one that says the most of them.
    """
    least, most = (math.log(n) for n in c.style.num_words)
    num_words = round(math.exp(c.rng.uniform(least, most)))
    sizes, start = _sizes(c, num_words), c.rng.getstate()
    scenes = c.rng.sample(DENSE[domain], len(DENSE[domain]))
    best: tuple[int, str, list[Element]] | None = None
    for scene in scenes:
        for size in sizes:
            c.rng.setstate(start)
            c.elements = []
            sheet = Sheet(c, size, num_words)
            called = scene(sheet)
            said = sum(isinstance(e, Text) for e in c.elements)
            if said and (best is None or sheet.num_left < best[0]):
                best = sheet.num_left, called, c.elements
            if sheet.num_left == 0:
                return called
    if best is None:
        raise ValueError(
            f"a page of {c.width} x {c.height} px has no room for a word of "
            f"{c.style.body_px[0]} px type: make the page larger or body_px smaller"
        )
    _, called, c.elements = best
    return called
