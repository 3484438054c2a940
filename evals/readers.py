"""OCR as the proofreader: pictures in, lines of words out."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import logging
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image


@dataclasses.dataclass(frozen=True)
class ReadLine:
    """A line as it was read; `box_px` is (left, top, width, height) on the picture as it was
    given."""

    string: str
    box_px: tuple[float, float, float, float]
    confidence: float


@functools.cache
def _engine(num_threads: int) -> Any:
    from rapidocr import RapidOCR

    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return RapidOCR(
        params={
            "EngineConfig.onnxruntime.intra_op_num_threads": num_threads,
            "Global.log_level": "error",
        }
    )


class RapidReader:
    """rapidocr with the models of its wheel. Small pictures are enlarged: it does not read under
    about 30 px."""

    def __init__(self, *, enlarge_to_px: int = 512, num_threads: int = 2) -> None:
        self.enlarge_to_px = enlarge_to_px
        self.num_threads = num_threads
        self.name = f"rapidocr {importlib.metadata.version('rapidocr')}"
        self._seen: dict[str, list[ReadLine]] = {}

    def read(self, picture: UInt8[np.ndarray, "Y X C"]) -> list[ReadLine]:
        """Lines from top to bottom; pictures seen before are not read again."""
        key = hashlib.sha256(picture.tobytes() + str(picture.shape).encode()).hexdigest()
        if key not in self._seen:
            self._seen[key] = self._read(picture)
        return self._seen[key]

    def words(self, picture: UInt8[np.ndarray, "Y X C"]) -> list[str]:
        """All words of a picture, in reading order."""
        return [word for line in self.read(picture) for word in line.string.split()]

    def _read(self, picture: np.ndarray) -> list[ReadLine]:
        factor = max(1, round(self.enlarge_to_px / min(picture.shape[:2])))
        large = Image.fromarray(picture)
        large = large.resize(
            (large.width * factor, large.height * factor), Image.Resampling.LANCZOS
        )
        found = _engine(self.num_threads)(np.asarray(large)[:, :, ::-1])
        lines = []
        for string, corners, score in zip(
            found.txts or (), found.boxes if found.boxes is not None else (), found.scores or (),
            strict=True,
        ):  # fmt: skip
            low, high = corners.min(axis=0) / factor, corners.max(axis=0) / factor
            box = (low[0], low[1], high[0] - low[0], high[1] - low[1])
            lines.append(ReadLine(string, tuple(map(float, box)), float(score)))  # type: ignore[arg-type]  # four of them
        return sorted(lines, key=lambda line: (line.box_px[1], line.box_px[0]))
