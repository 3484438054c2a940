"""Posters, mockups and shop graphics: each scene composes a canvas and says what it is called."""

from __future__ import annotations

from collections.abc import Callable

from blueprint.schema import Shape
from train.data.posters import words
from train.data.posters.canvas import Canvas, Look
from train.data.posters.palettes import MOCKUPS, POSTERS, SHOPS, Palette

SUBJECTS = ("shoes", "lamps", "mugs", "bags", "plants", "coffee", "bikes", "bottles")
PHOTOS = ("coffee", "cat", "astronaut", "rocket", "motorcycle", "coins")
PRODUCTS = ("mug", "bottle", "lamp", "shoe", "bag", "plant")
Scene = Callable[[Canvas], str]
MAX_TEXTS = 4  # of a page of 128 px that has some which its prompt does not say
OWN_TEXTS = (  # every string that a page may have without the prompt's saying so
    "Shop now", "Buy now", "Log in", "Sign in", "Email", "Password", "NOTICE", "Choose",
    *(f"{subject.upper()} SALE" for subject in SUBJECTS),
)  # fmt: skip


def event(c: Canvas) -> str:
    """A title over a date and a place, with a band or a disc."""
    p, r, m = c.palette, c.rng, c.u(8)
    if r.random() < 0.5:
        c.shape("rectangle", (0, c.height - c.u(34), c.width, c.u(34)), p.accent)
        low = p.accent
    else:
        c.shape("rectangle", (0, 0, c.width, c.u(5)), p.accent)
        c.shape("rectangle", (0, c.height - c.u(34), c.width, c.u(34)), p.card)
        low = p.card
    align = r.choice(("left", "center"))
    room = c.width - 2 * m
    title = Look(r.choice((18, 20, 22)), p.ink(p.ground, r), "bold", align, wraps=True)
    foot = c.long_text("title", (m, c.u(8), room), title, lowest=c.height - c.u(38)) or c.text(
        "title", c.phrase(r.choice((1, 2))), (m, c.u(r.randint(8, 14)), room), title
    )
    day, month = r.choice(words.DAYS), r.choice(words.MONTHS)
    date = f"{day} {r.randint(10, 29)} {month}"
    if foot < c.height - c.u(56):
        c.text(
            "subtitle", date, (m, foot + c.u(4), room), Look(14, p.ink(p.ground, r), align=align)
        )
    c.text(
        "label", c.phrase(1), (m, c.height - c.u(26), room), Look(14, p.ink(low, r), "bold", align)
    )
    return "event poster"


def sale(c: Canvas) -> str:
    """A shout, a burst with the reduction, a button."""
    p, r, m = c.palette, c.rng, c.u(8)
    subject = r.choice(SUBJECTS)
    shout = f"{subject.upper()} SALE" if c.leaves_content else c.phrase(r.choice((1, 2)))
    big = Look(20, p.ink(p.ground, r), "bold", wraps=True, free=c.leaves_content)
    foot = c.text("title", shout, (m, c.u(7), c.width - 2 * m), big)
    side = min(c.u(50), c.height - c.u(28) - foot)
    left = c.width - side - m if r.random() < 0.6 else (c.width - side) / 2
    top = min(foot + c.u(2), c.height - c.u(28) - side)
    c.shape("burst", (left, top, side, side), p.accent)
    off = f"-{r.choice((20, 30, 40, 50, 60, 70))}%"
    c.text(
        "badge", off, (left + c.u(2), top + side / 2 - c.u(9), side - c.u(4)),
        Look(14, p.ink(p.accent, r), "bold", "center", font="sans"),
    )  # fmt: skip
    button(c, (m, c.height - c.u(26), c.u(86)), p.card, free="Shop now")
    return f"sale poster for {subject}" if c.leaves_content else "sale poster"


def button(c: Canvas, at: tuple[float, float, float], colour: str, *, free: str) -> None:
    """A pill at (left, top) up to `width` wide, as wide as its label needs."""
    left, top, width = at
    pill = len(c.elements)
    c.shape("pill", (left, top, width, c.u(20)), colour)
    string = free if c.leaves_content else c.phrase(1)
    look = Look(12, c.palette.ink(colour, c.rng), "bold", "center", free=c.leaves_content)
    c.text("button", string, (left + c.u(6), top + c.u(2.5), width - c.u(12)), look)
    label = c.elements[-1].box
    x, _, wide, _ = label.pixels(c.width, c.height)
    c.elements[pill] = Shape(  # the pill hugs its label
        "pill", c.box(x - c.u(7), top, wide + c.u(14), c.u(20)), colour
    )


def quote(c: Canvas) -> str:
    """Two or three lines and who said them."""
    p, r = c.palette, c.rng
    m = c.u(14)
    c.shape("rectangle", (c.u(5), c.u(12), c.u(3), c.height - c.u(48)), p.accent)
    said = Look(
        r.choice((15, 16, 18)), p.ink(p.ground, r), wraps=True, font=r.choice(("serif", None))
    )
    at = (m, c.u(11), c.width - m - c.u(5))
    foot = c.long_text("body", at, said, lowest=c.height - c.u(30))
    foot = foot or c.text("body", c.phrase(r.choice((3, 3, 4))), at, said)
    while foot > c.height - c.u(30):
        c.elements.pop()
        foot = c.text("body", c.phrase(2), at, said)
    c.shape("line", (m, c.height - c.u(30), c.u(24), max(c.u(2), 2)), p.line)
    c.text(
        "label", words.real(r), (m, c.height - c.u(24), c.width - m - c.u(5)),
        Look(13, p.ink(p.ground, r), "bold"),
    )  # fmt: skip
    return "quote poster"


def notice(c: Canvas) -> str:
    """A framed sheet with a heading and what it is about."""
    p, r, m = c.palette, c.rng, c.u(6)
    c.shape("rounded", (m, m, c.width - 2 * m, c.height - 2 * m), p.card)
    c.shape("rectangle", (m, c.u(38), c.width - 2 * m, max(c.u(2), 2)), p.accent)
    room = c.width - 4 * m
    head = "NOTICE" if c.leaves_content else c.phrase(1)
    c.text(
        "title", head, (2 * m, c.u(11), room),
        Look(20, p.ink(p.card, r), "bold", "center", free=c.leaves_content),
    )  # fmt: skip
    body = Look(15, p.ink(p.card, r), align="center", wraps=True)
    at = (2 * m, c.u(44), room)
    foot = c.long_text("body", at, body, lowest=c.height - c.u(14))
    foot = foot or c.text("body", c.phrase(2), (2 * m, c.u(46), room), body)
    if foot < c.height - c.u(32):
        look = Look(13, p.ink(p.card, r), "bold", "center")
        c.text(
            "label",
            words.price(r) if r.random() < 0.3 else c.phrase(1),
            (2 * m, foot + c.u(6), room),
            look,
        )
    return "notice"


def bar(c: Canvas, icon: str, title: str) -> float:
    """The strip along the top of a screen; returns its foot."""
    p = c.palette
    c.shape("rectangle", (0, 0, c.width, c.u(24)), p.accent)
    ink = p.ink(p.accent, c.rng)
    c.shape(icon, (c.u(6), c.u(6), c.u(12), c.u(12)), ink)
    c.text("title", title, (c.u(24), c.u(3.5), c.width - c.u(30)), Look(14, ink, "bold"))
    return c.u(24)


def login(c: Canvas) -> str:
    """Two fields and a button under a heading."""
    p, r, m = c.palette, c.rng, c.u(10)
    head = "Sign in" if c.leaves_content else c.phrase(1)
    c.text(
        "title", head, (m, c.u(8), c.width - 2 * m),
        Look(18, p.ink(p.ground, r), "bold", r.choice(("left", "center")), free=c.leaves_content),
    )  # fmt: skip
    top = c.u(38)
    for default in ("Email", "Password")[: r.choice((1, 2, 2))]:
        c.shape("rounded", (m, top, c.width - 2 * m, c.u(23)), p.line, "outline")
        look = Look(13, p.ink(p.ground, r), free=c.leaves_content)
        string = default if c.leaves_content else c.phrase(1)
        c.text("field", string, (m + c.u(6), top + c.u(3), c.width - 2 * m - c.u(10)), look)
        top += c.u(28)
    button(c, (m, c.height - c.u(27), c.width - 2 * m), p.accent, free="Log in")
    return "login screen"


def settings(c: Canvas) -> str:
    """Rows of a label and a switch."""
    p, r = c.palette, c.rng
    top = bar(c, r.choice(("arrow", "menu")), c.phrase(1)) + c.u(6)
    rows = r.choice((2, 3, 3)) + (1 if c.roomy else 0)
    pitch = min((c.height - top) // rows, c.u(32))
    for i in range(rows):
        y = top + i * pitch
        c.text(
            "label",
            c.phrase(1),
            (c.u(8), y + c.u(4), c.width - c.u(46)),
            Look(13, p.ink(p.ground, r)),
        )
        on = r.random() < 0.5
        c.shape(
            "pill", (c.width - c.u(32), y + c.u(5), c.u(24), c.u(13)), p.accent if on else p.line
        )
        knob = c.width - c.u(32) + (c.u(12.5) if on else c.u(1.5))
        c.shape("ellipse", (knob, y + c.u(6.5), c.u(10), c.u(10)), "#fff")
        if i + 1 < rows:
            c.shape("line", (c.u(8), y + pitch - 2, c.width - c.u(16), 1), p.line)
    return "settings screen"


def pricing(c: Canvas) -> str:
    """A plan's card: name, price, button."""
    p, r, m = c.palette, c.rng, c.u(10)
    c.shape("rounded", (m, m, c.width - 2 * m, c.height - 2 * m), p.card)
    room = c.width - 4 * m
    ink = p.ink(p.card, r)
    c.text("label", c.phrase(1), (2 * m, c.u(16), room), Look(15, ink, "bold", "center"))
    c.text(
        "price",
        words.price(r),
        (2 * m, c.u(42), room),
        Look(24, ink, "bold", "center", font="sans"),
    )
    button(c, (2 * m, c.height - c.u(36), room), p.accent, free="Choose")
    return "pricing card"


def chat(c: Canvas) -> str:
    """A contact's name over bubbles from both sides."""
    p, r = c.palette, c.rng
    top = bar(c, "user", words.real(r)) + c.u(8)
    rows = r.choice((2, 3, 3)) + (1 if c.roomy else 0)
    pitch = min((c.height - top) // rows, c.u(32))
    for i in range(rows):
        mine = i % 2 == 1
        colour = p.accent if mine else p.line
        bubble = len(c.elements)
        c.shape("rounded", (0, 0, 1, 1), colour)
        look = Look(13, p.ink(colour, r), align="right" if mine else "left")
        c.text("body", c.phrase(1), (c.u(12), top + i * pitch + c.u(3), c.width - c.u(24)), look)
        x, y, w, h = c.elements[-1].box.pixels(c.width, c.height)
        box = c.box(x - c.u(6), y - c.u(3), w + c.u(12), h + c.u(6))
        c.elements[bubble] = Shape("rounded", box, colour)
    return "chat screen"


def dashboard(c: Canvas) -> str:
    """A card with a number, and a bar chart."""
    p, r, m = c.palette, c.rng, c.u(8)
    top = bar(c, r.choice(("menu", "home", "bell")), c.phrase(1)) + c.u(6)
    c.shape("rounded", (m, top, c.width - 2 * m, c.u(46)), p.card)
    ink = p.ink(p.card, r)
    c.text(
        "label", c.phrase(1), (m + c.u(6), top + c.u(4), c.width - 2 * m - c.u(12)), Look(12, ink)
    )
    number = r.choice((f"{r.randint(2, 99)}%", f"{r.randint(200, 9999)}", words.price(r)))
    c.text(
        "price", number, (m + c.u(6), top + c.u(21), c.width - 2 * m - c.u(12)),
        Look(17, ink, "bold", font="sans"),
    )  # fmt: skip
    bars = r.randint(5, 7)
    pitch = (c.width - 2 * m) / bars
    for i in range(bars):
        high = c.u(r.randint(10, 38))
        colour = p.accent if r.random() < 0.6 else p.line
        c.shape(
            "rectangle", (m + i * pitch, c.height - c.u(6) - high, pitch - c.u(4), high), colour
        )
    return "dashboard"


def product(c: Canvas) -> str:
    """A picture over a name, a price and a heart or a cart."""
    p, r, m = c.palette, c.rng, c.u(6)
    high = c.height - c.u(52)
    caption = r.choice((*PHOTOS, *PRODUCTS))
    c.picture((m, m, c.width - 2 * m, high - m), caption)
    c.shape(
        r.choice(("heart", "star")), (c.width - m - c.u(18), m + c.u(4), c.u(14), c.u(14)), p.accent
    )
    room = c.width - 2 * m
    foot = c.text(
        "title", c.phrase(1), (m, high + c.u(4), room), Look(16, p.ink(p.ground, r), "bold")
    )
    c.text(
        "price",
        words.price(r),
        (m, foot + c.u(3), room / 2),
        Look(15, p.ink(p.ground, r), font="sans"),
    )
    c.shape("cart", (c.width - m - c.u(20), c.height - c.u(22), c.u(16), c.u(16)), p.accent)
    return f"product card for a {caption}"


def banner(c: Canvas) -> str:
    """A picture on one side, words and a button on the other."""
    p, r, m = c.palette, c.rng, c.u(7)
    caption = r.choice((*PHOTOS, *PRODUCTS))
    c.picture((0, c.height - c.u(54), c.width, c.u(54)), caption)
    room = c.width - 2 * m
    foot = c.text(
        "title", c.phrase(r.choice((1, 1, 2))), (m, c.u(6), room),
        Look(18, p.ink(p.ground, r), "bold", wraps=True),
    )  # fmt: skip
    if foot < c.u(46):
        foot = c.text(
            "subtitle", c.phrase(1), (m, foot + c.u(2), room), Look(14, p.ink(p.ground, r))
        )
    button(c, (m, c.height - c.u(27), c.u(90)), p.accent, free="Buy now")
    return f"shop banner with a {caption}"


def badge(c: Canvas) -> str:
    """A round seal with two or three short lines."""
    p, r = c.palette, c.rng
    side = min(c.width, c.height) - c.u(12)
    left, top = (c.width - side) / 2, (c.height - side) / 2
    c.shape("ellipse", (left, top, side, side), p.accent)
    c.shape("ellipse", (left + c.u(5), top + c.u(5), side - c.u(10), side - c.u(10)), p.card)
    room = side - c.u(26)
    ink = p.ink(p.card, r)
    left += c.u(13)
    c.text(
        "label",
        c.phrase(1),
        (left + c.u(8), top + c.u(20), room - c.u(16)),
        Look(13, ink, align="center"),
    )
    off = r.choice((words.price(r), f"-{r.randint(2, 9)}0%"))
    c.text("badge", off, (left, top + c.u(41), room), Look(24, ink, "bold", "center", font="sans"))
    c.text(
        "label",
        c.phrase(1),
        (left + c.u(8), top + c.u(78), room - c.u(16)),
        Look(13, ink, align="center"),
    )
    return "round badge"


def tag(c: Canvas) -> str:
    """A hanging price tag."""
    p, r, m = c.palette, c.rng, c.u(10)
    c.shape("rounded", (m, c.u(8), c.width - 2 * m, c.height - c.u(16)), p.card)
    c.shape("ellipse", (c.width / 2 - c.u(6), c.u(13), c.u(12), c.u(12)), p.ground)
    ink = p.ink(p.card, r)
    room = c.width - 4 * m
    c.text("title", c.phrase(1), (2 * m, c.u(30), room), Look(16, ink, align="center"))
    c.text(
        "price",
        words.price(r),
        (2 * m, c.u(56), room),
        Look(24, ink, "bold", "center", font="sans"),
    )
    c.text("label", c.phrase(1), (2 * m, c.u(94), room), Look(13, ink, align="center"))
    return "price tag"


DOMAINS: dict[str, tuple[tuple[Palette, ...], tuple[Scene, ...]]] = {
    "poster": (POSTERS, (event, sale, quote, notice)),
    "mockup": (MOCKUPS, (login, settings, pricing, chat, dashboard)),
    "shop": (SHOPS, (product, banner, badge, tag)),
}
