"""OCR as the proofreader: pictures in, lines of words out.

`open_reader` makes a reader of a word such as `rapidocr`; `read_all` reads many pictures in
several processes and remembers what it read.
"""

from evals.readers.batch import ReadPicture, load, read_all
from evals.readers.both import BestOfBoth
from evals.readers.crops import Quad, rectified
from evals.readers.lines import (
    PictureError,
    Reader,
    ReaderError,
    ReadLine,
    overlap,
    reading_order,
)
from evals.readers.opening import READERS, open_reader
from evals.readers.outside import CommandReader, HttpReader
from evals.readers.rapid import RapidReader
from evals.readers.tesseract import TesseractReader

__all__ = [
    "READERS", "BestOfBoth", "CommandReader", "HttpReader", "PictureError", "Quad", "RapidReader",
    "ReadLine", "ReadPicture", "Reader", "ReaderError", "TesseractReader", "load", "open_reader",
    "overlap", "read_all", "reading_order", "rectified",
]  # fmt: skip
