"""The planner's ids: structural tokens, colour digits, numbers and bytes. (Never called a
tokenizer.)"""

from __future__ import annotations

from blueprint import schema

_FIELDS = {
    "text": schema.TEXT_KINDS,
    "shape": schema.SHAPE_KINDS,
    "font": schema.FONT_CLASSES,
    "weight": schema.WEIGHTS,
    "align": schema.ALIGNS,
    "source": schema.SOURCES,
    "paint": schema.PAINTS,
}
_STRUCTURE = ("pad", "prompt", "plan", "v1", "end", "text", "shape", "picture", "line", "style")
_NAMES = (
    *_STRUCTURE,
    *(f"{field}:{value}" for field, values in _FIELDS.items() for value in values),
    *(f"hex:{digit:x}" for digit in range(16)),
    *(f"number:{n}" for n in range(1001)),
    *(f"byte:{b:02x}" for b in range(256)),
)
_IDS = {name: i for i, name in enumerate(_NAMES)}
_HEX, _NUMBER, _BYTE = _IDS["hex:0"], _IDS["number:0"], _IDS["byte:00"]

SIZE = len(_NAMES)
PAD = _IDS["pad"]


def name(token: int) -> str:
    """What an id stands for, as in `font:serif`, `number:250` or `byte:41`."""
    return _NAMES[token]


def token(name: str) -> int:
    """The id of a name; raises `KeyError` for one that does not exist."""
    return _IDS[name]


def choices(field: str) -> tuple[int, ...]:
    """The ids of a field's values in the schema's order."""
    return tuple(_IDS[f"{field}:{value}"] for value in _FIELDS[field])


def hex_digit(value: int) -> int:
    """The id of a colour channel's four bits."""
    return _HEX + value


def number(value: int) -> int:
    """The id of a whole number from 0 to 1000."""
    return _NUMBER + value


def byte(value: int) -> int:
    """The id of a byte of UTF-8."""
    return _BYTE + value


def string(text: str) -> list[int]:
    """The ids of a string's UTF-8 bytes."""
    return [_BYTE + b for b in text.encode()]


def as_byte(token: int) -> int | None:
    """The byte an id stands for, or None."""
    return token - _BYTE if token >= _BYTE else None


def encode_prompt(prompt: str) -> list[int]:
    """`<prompt>`, the prompt's bytes, `<plan>`: what the planner continues."""
    return [_IDS["prompt"], *string(prompt), _IDS["plan"]]
