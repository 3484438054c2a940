"""A cache made with NumPy alone, also in a process of its own, for tests that kill it:
`python coding_toys.py FOLDER SECONDS_PER_PAGE PROCESS_INDEX NUM_PROCESSES`."""

import dataclasses
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from blueprint.schema import Blueprint, Box, Text
from train.data.encoding import Coder, Encoding, encode

CONTRACT = {
    "codebook_size": 8, "num_codes": 3, "quantizer": "toy", "levels": [8], "downsampling": 8,
    "grid": [4, 2], "scan": "raster", "weights": "abc",
}  # fmt: skip


def encoded(pixels):
    """The mean of each 8 px block and channel, in eighths of the range."""
    B, Y, X, C = pixels.shape
    return pixels.reshape(B, Y // 8, 8, X // 8, 8, C).mean(axis=(2, 4)).astype(np.int32) // 32


def decoded(codes):
    return (32 * codes.astype(np.int32) + 16).astype(np.uint8).repeat(8, axis=1).repeat(8, axis=2)


def canonical(blueprint):
    ground = [17 * int(digit, 16) for digit in blueprint.background[1:]]
    return np.full((blueprint.height_px, blueprint.width_px, 3), ground, np.uint8)


CODER = Coder(encoded, decoded, canonical, CONTRACT)


@dataclasses.dataclass(frozen=True)
class Coloured:
    """Pages 16 px wide and 32 px high that are drawn in `page_s` seconds each."""

    num_pages: int
    page_s: float = 0.0
    word: str = "K9"

    def __len__(self):
        return self.num_pages

    def __getitem__(self, index):
        time.sleep(self.page_s)
        text = Text("label", (f"{self.word} {index}",), Box(0, 0, 900, 100 + index))
        pixels = np.random.default_rng(index).integers(0, 256, (4, 2, 3), dtype=np.uint8)
        return {
            "prompt": f'a "{text.string}" – é',
            "blueprint": Blueprint(16, 32, f"#{index % 16:x}1a", (text,)),
            "pixels": pixels.repeat(8, axis=0).repeat(8, axis=1),
        }


def job(folder, *, source=None, coder=CODER, num_shards=4, **data):
    """23 pages in four shards, unless told otherwise."""
    source = source or Coloured(23)
    return Encoding(source, Path(folder), coder, {"name": "toys", **data}, 23, num_shards)


def contents(folder):
    """Every file of a folder by its name, and none that is a draft."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


if __name__ == "__main__":
    source = Coloured(23, float(sys.argv[2]))
    made = job(sys.argv[1], source=source)
    encode(made, process_index=int(sys.argv[3]), num_processes=int(sys.argv[4]))
