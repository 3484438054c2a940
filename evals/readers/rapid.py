"""The default reader: rapidocr with the models of its wheel, which needs no network."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evals.readers.crops import Quad, rectified
from evals.readers.lines import Picture, Reader, ReadLine, enlarged, reading_order

_UPRIGHT = 1.5  # a crop this many times higher than wide is lettered along its height


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


@functools.cache
def _models() -> dict[str, str]:
    """rapidocr's models of detection, direction and recognition, and their digests."""
    import rapidocr

    files = sorted((Path(rapidocr.__file__).parent / "models").glob("*.onnx"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}


class RapidReader(Reader):
    """rapidocr. Small pictures are enlarged: it does not read under about 30 px.

    Pictures that it has read it does not read again.
    """

    def __init__(self, *, enlarge_to_px: int = 512, num_threads: int = 2) -> None:
        self.enlarge_to_px = enlarge_to_px
        self.num_threads = num_threads
        self.name = f"rapidocr {importlib.metadata.version('rapidocr')}"
        self._seen: dict[str, list[ReadLine]] = {}

    @property
    def identity(self) -> Mapping[str, str]:
        """rapidocr, the runtime, each model."""
        return {
            "engine": "rapidocr",
            "version": importlib.metadata.version("rapidocr"),
            "onnxruntime": importlib.metadata.version("onnxruntime"),
            "enlarge_to_px": str(self.enlarge_to_px),
            **_models(),
        }

    def read(self, picture: Picture) -> list[ReadLine]:
        """The lines it has at least half confidence in."""
        key = hashlib.sha256(picture.tobytes() + str(picture.shape).encode()).hexdigest()
        if key not in self._seen:
            self._seen[key] = self._read(picture)
        return self._seen[key]

    def read_crops(self, picture: Picture, quads: Sequence[Quad]) -> list[str]:
        """Recognition alone, of each crop by itself: what stands beside it in a batch would widen
        it. Upright crops are read lying on their left side, as rapidocr does with its own."""
        engine = _engine(self.num_threads)
        strings = []
        for crop in (rectified(picture, quad) for quad in quads):
            if crop is None:
                strings.append("")
                continue
            if crop.shape[0] >= _UPRIGHT * crop.shape[1]:
                crop = np.rot90(crop)
            (string,) = engine.recognize_txt([np.ascontiguousarray(crop[:, :, ::-1])]).txts
            strings.append(string)
        return strings

    def on_one_thread(self) -> RapidReader:
        """A reader of one onnx thread that has seen nothing."""
        return RapidReader(enlarge_to_px=self.enlarge_to_px, num_threads=1)

    def _read(self, picture: np.ndarray) -> list[ReadLine]:
        large, factor = enlarged(picture, self.enlarge_to_px)
        found = _engine(self.num_threads)(large[:, :, ::-1])
        boxes: Any = () if found.boxes is None else found.boxes
        lines = []
        for string, corners, score in zip(found.txts or (), boxes, found.scores or (), strict=True):
            (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
            box = (left, top, right - left, bottom - top)
            lines.append(ReadLine(string, _quartet(np.divide(box, factor)), float(score)))
        return reading_order(lines)


def _quartet(box: np.ndarray) -> tuple[float, float, float, float]:
    left, top, width, height = map(float, box)
    return left, top, width, height
