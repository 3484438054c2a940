"""A code cache: the codes of a data set's pages on disk, under the token contract of what made
them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from train.checkpoint import differences
from train.data.sources import Record

NAMES = ("codes", "glyph_codes")  # of the page, and of its lines in the canonical font


class ContractError(RuntimeError):
    """Codes of one tokenizer met a model of another."""


def require_same(found: Mapping[str, Any], wanted: Mapping[str, Any], *, where: str) -> None:
    """Raise `ContractError` saying what differs, unless two token contracts are the same."""
    if lines := differences(json.loads(json.dumps(found)), json.loads(json.dumps(wanted))):
        raise ContractError(
            f"{where} holds codes of another tokenizer ({'; '.join(lines)}): encode again with "
            "scripts/encode.py, or load the tokenizer they came from"
        )


def write_cache(
    folder: Path,
    chunks: Iterable[Mapping[str, np.ndarray]],
    shape: tuple[int, ...],
    header: Mapping[str, Any],
) -> None:
    """Write chunks of named codes [n y x Q] up to `shape`, the header last: no header, no cache.

    They are stored as the smallest whole numbers that hold the contract's codebook (uint8 to 256).

    Raises `ValueError` when the chunks do not add up to the shape.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cache.json").unlink(missing_ok=True)
    dtype = np.min_scalar_type(header["contract"]["codebook_size"] - 1)
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
        for name in NAMES
    }
    at = 0
    for chunk in chunks:
        size = len(chunk[NAMES[0]])
        for name, array in arrays.items():
            array[at : at + size] = chunk[name]
        at += size
    if at != shape[0]:
        raise ValueError(f"{folder} got {at} pages of codes, not {shape[0]}")
    for array in arrays.values():
        array.flush()
    draft = folder / "cache.json.part"
    draft.write_text(json.dumps(header, indent=1))
    os.replace(draft, folder / "cache.json")


def read_header(folder: Path) -> dict[str, Any]:
    """Contract and origin of a cache; raises `FileNotFoundError` for a missing or unfinished
    one."""
    path = Path(folder) / "cache.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no finished code cache; make one with scripts/encode.py"
        )
    return json.loads(path.read_text())


@dataclasses.dataclass
class Coded:
    """Records of a source of plans, with `codes` and `glyph_codes` of the cache in `folder`."""

    plans: Any
    folder: Path

    def __post_init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> Record:
        if not self._arrays:
            self._arrays = {
                name: np.load(Path(self.folder) / f"{name}.npy", mmap_mode="r") for name in NAMES
            }
        codes = {name: np.array(array[int(index)]) for name, array in self._arrays.items()}
        return {**self.plans[index], **codes}
