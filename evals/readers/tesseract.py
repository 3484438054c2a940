"""Tesseract, the second opinion: the program on this machine, spoken to through its TSV."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from evals.readers.crops import Quad, rectified
from evals.readers.lines import (
    Picture,
    PictureError,
    Reader,
    ReaderError,
    ReadLine,
    enlarged,
    joined,
    reading_order,
)

SPARSE, ONE_LINE = 11, 7  # Tesseract's page segmentation modes
_LINE_PX = 48  # near the height that the model was trained at
_LONGEST = 200  # times its height: no line of text, and Tesseract's time grows with the square
_TIMEOUT_S = 120
_WORD = "5"  # TSV level of the rows that have text


class TesseractReader(Reader):
    """Tesseract 4 or newer in some of its `languages`, as in `eng+deu`.

    Pictures are read as sparse text, which finds the labels of posters and mockups that the
    default hunt for columns passes by. Raises `ReaderError` when the program or a language is not
    installed.
    """

    def __init__(
        self, languages: str = "eng", *, enlarge_to_px: int = 512, program: str = "tesseract"
    ) -> None:
        found = shutil.which(program)
        if found is None:
            raise ReaderError(
                f"the program {program!r} is not on the PATH; install Tesseract (apt-get install "
                "tesseract-ocr, or brew install tesseract) or take the reader rapidocr"
            )
        self.languages = languages
        self.enlarge_to_px = enlarge_to_px
        self._program = found
        self._models = _models(found, languages)
        version = _said(found, "--version").split("\n")[0].split()
        self._version = version[-1] if version else "unknown"
        self.name = f"tesseract {self._version} {languages}"

    @property
    def identity(self) -> Mapping[str, str]:
        """The program's version and each language's model."""
        return {
            "engine": "tesseract",
            "version": self._version,
            "languages": self.languages,
            "enlarge_to_px": str(self.enlarge_to_px),
            "page_segmentation": str(SPARSE),
            **self._models,
        }

    def read(self, picture: Picture) -> list[ReadLine]:
        """Words that Tesseract puts on one line of one paragraph, together; a line's confidence is
        its words' mean, by their length."""
        large, factor = enlarged(picture, self.enlarge_to_px)
        return reading_order([_line(words, factor) for words in self._lines(large, SPARSE)])

    def read_crops(self, picture: Picture, quads: Sequence[Quad]) -> list[str]:
        """Each crop is read as a single line."""
        strings = []
        for crop in (rectified(picture, quad) for quad in quads):
            if crop is None or max(crop.shape) > _LONGEST * min(crop.shape[:2]):
                strings.append("")
                continue
            lines = self._lines(enlarged(crop, _LINE_PX)[0], ONE_LINE)
            strings.append(joined([row["text"].strip() for words in lines for row in words]))
        return strings

    def _lines(self, large: np.ndarray, mode: int) -> list[list[dict[str, str]]]:
        png = io.BytesIO()
        Image.fromarray(large).save(png, "PNG", compress_level=1)
        command = [self._program, "stdin", "stdout", "-l", self.languages, "--psm", str(mode)]
        try:
            done = subprocess.run(
                [*command, "tsv"], input=png.getvalue(), capture_output=True, timeout=_TIMEOUT_S,
                env={**os.environ, "OMP_THREAD_LIMIT": "1"},  # its threads cost more than they give
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise PictureError(f"tesseract did not finish within {_TIMEOUT_S} s") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().split("\n")[-1]
            raise PictureError(f"tesseract failed with status {done.returncode}: {said}")
        table = done.stdout.decode("utf-8", errors="replace")
        lines: dict[tuple[str, ...], list[dict[str, str]]] = {}
        for row in csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["level"] == _WORD and row["text"].strip():
                place = (row["block_num"], row["par_num"], row["line_num"])
                lines.setdefault(place, []).append(row)
        return list(lines.values())


def _line(words: list[dict[str, str]], factor: int) -> ReadLine:
    left = min(int(row["left"]) for row in words)
    top = min(int(row["top"]) for row in words)
    right = max(int(row["left"]) + int(row["width"]) for row in words)
    bottom = max(int(row["top"]) + int(row["height"]) for row in words)
    box = (left / factor, top / factor, (right - left) / factor, (bottom - top) / factor)
    strings = [row["text"].strip() for row in words]
    scores = [float(row["conf"]) / 100 for row in words]
    return ReadLine(
        joined(strings), box, float(np.average(scores, weights=[len(s) for s in strings]))
    )


def _said(program: str, *flags: str) -> str:
    done = subprocess.run([program, *flags], capture_output=True, text=True, timeout=_TIMEOUT_S)
    if done.returncode:
        raise ReaderError(f"{program} {' '.join(flags)} failed: {done.stderr.strip()}")
    return done.stdout or done.stderr  # old versions print to the latter


@functools.cache
def _models(program: str, languages: str) -> dict[str, str]:
    """The languages' model files and their digests."""
    listed = _said(program, "--list-langs")
    installed = listed.split("\n")[1:]
    wanted = languages.split("+")
    if missing := [language for language in wanted if language not in installed]:
        there = ", ".join(filter(None, installed)) or "none"
        raise ReaderError(
            f"Tesseract has no language {', '.join(missing)} (it has {there}); install it "
            f"(apt-get install tesseract-ocr-{missing[0].replace('_', '-')}) or ask for another"
        )
    folder = re.search(r'"(.+)"', listed.split("\n")[0])
    models = {}
    for language in wanted:
        path = Path(folder[1] if folder else "", f"{language}.traineddata")
        known = path.is_file()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if known else "unknown"
        models[path.name] = digest
    return models
