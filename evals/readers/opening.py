"""A reader for a word of the command line."""

from __future__ import annotations

from evals.readers.both import BestOfBoth
from evals.readers.lines import Reader, ReaderError
from evals.readers.outside import CommandReader, HttpReader
from evals.readers.rapid import RapidReader
from evals.readers.tesseract import TesseractReader

READERS = {
    "rapidocr": "its models come with it",
    "tesseract": "the program must be installed; tesseract:eng+deu names languages",
    "best": "rapidocr and Tesseract, line by line the surer one; best:eng+deu names languages",
    "command:PROGRAM ARGS": "a program that gets a PNG's path and prints JSON lines",
    "http://HOST:PORT/PATH": "a server that gets a PNG and answers in JSON; https:// as well",
}


def open_reader(spec: str) -> Reader:
    """The reader that `spec` names; see `READERS`, and `evals/readers/outside.py` for the format of
    the last two.

    Raises `ReaderError` when there is no such reader or its engine is not installed.
    """
    kind, _, rest = spec.partition(":")
    if spec == "rapidocr":
        return RapidReader()
    if kind == "tesseract" and (rest or spec == kind):
        return TesseractReader(rest or "eng")
    if kind == "best" and (rest or spec == kind):
        return BestOfBoth(RapidReader(), TesseractReader(rest or "eng"))
    if kind == "command" and rest.strip():
        return CommandReader(rest.strip())
    if kind in ("http", "https") and rest.startswith("//"):
        return HttpReader(spec)
    choices = "; ".join(f"{name} ({what})" for name, what in READERS.items())
    raise ReaderError(f"there is no reader {spec!r}; the choices are {choices}")
