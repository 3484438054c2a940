"""Words for pages: invented ones that no model can know, beside real names, places and prices.

Invented words avoid, and we say so plainly, glyphs that some font draws alike (I l 1 |, O 0 Q, i j
next to l), and the letters whose case is only a matter of size never stand alone in mixed case: a
word is capitalised, all upper or all lower case. Training and held-out words are disjoint by a hash
of the word.
"""

from __future__ import annotations

import functools
import random
import zlib

_LOWER = "abcdefghkmnoprstuvwxyz"
_UPPER = "ABDEFGHKLMNPRTUVXYZ"
_DIGITS = "23456789"
_ONSETS = ("b", "br", "d", "dr", "f", "g", "gr", "h", "k", "kr", "m", "n", "p", "pr", "r", "s",
           "st", "t", "tr", "v", "z")  # fmt: skip
_VOWELS = "aeou"
_CODAS = ("", "", "b", "d", "k", "m", "n", "p", "r", "s", "t", "x")
HELDOUT_SHARE = 16  # one word in so many
DAYS = ("MON", "TUE", "WED", "FRI", "SAT", "SUN")
MONTHS = ("MAY", "JUN", "AUG", "SEP")


def is_heldout(word: str) -> bool:
    """Which split an invented word belongs to."""
    return zlib.crc32(word.encode()) % HELDOUT_SHARE == 0


def _draw(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        word = ""
        for _ in range(rng.choice((1, 2, 2, 2, 3))):
            word += rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        word = (word + rng.choice("aou") + "nt")[: rng.randint(4, 9)] if len(word) < 3 else word
    elif kind < 0.75:
        word = "".join(rng.choice(_LOWER) for _ in range(rng.randint(3, 7)))
    else:
        letters = "".join(rng.choice(_UPPER) for _ in range(rng.randint(2, 4)))
        return letters + "".join(rng.choice(_DIGITS) for _ in range(rng.randint(1, 3)))
    case = rng.random()
    if case < 0.5:
        return word.capitalize()
    if case < 0.75:
        return "".join(c for c in word.upper() if c in _UPPER).ljust(3, "K")
    return word


def invented(rng: random.Random, split: str) -> str:
    """A word of 3 to 10 characters from one split's share of all such words."""
    while True:
        word = _draw(rng)
        if 3 <= len(word) <= 10 and is_heldout(word) == (split == "heldout"):
            return word


def price(rng: random.Random) -> str:
    """As in `$48.20`, `€7` or `19.95`."""
    whole, cents = (
        rng.randint(2, 99),
        rng.choice(("95", "99", "50", "20", f"{rng.randint(10, 99)}")),
    )
    return rng.choice((f"${whole}.{cents}", f"${whole}", f"€{whole}", f"{whole}.{cents}"))


@functools.cache
def _real() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names, words) drawn once from Faker; short, plain letters."""
    from faker import Faker

    fake = Faker("en_US")
    fake.seed_instance(7)
    plain = lambda w: w.isascii() and w.isalpha() and 3 <= len(w) <= 9  # noqa: E731
    drawn = [maker() for maker in (fake.first_name, fake.last_name, fake.city) for _ in range(300)]
    names = sorted({word for word in drawn if plain(word)})
    words = sorted({w for w in fake.words(800) if plain(w)})
    return tuple(names), tuple(words)


def real(rng: random.Random) -> str:
    """A name, a place or a common word."""
    names, words = _real()
    return rng.choice(names) if rng.random() < 0.5 else rng.choice(words).capitalize()


def in_training(word: str) -> bool:
    """Whether a training page may say a word: one of its split, a real one, a date or a number."""
    names, common = _real()
    real = word in names or word.lower() in common or word in (*DAYS, *MONTHS)
    return real or not is_heldout(word) or not any(c.isalpha() for c in word)
