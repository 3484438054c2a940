"""Weights as PyTorch saves them, `.pt` and `.bin`: read without running what they hold, and written
for programs that read nothing else."""

from __future__ import annotations

import argparse
import importlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from train.export import ExportError, FormatError, Stored, open_tensors

SUFFIXES = (".pt", ".pth", ".bin")
_INSIDE = ("ema", "model", "state_dict", "module")


def foreign(name: str) -> Any:
    """A library of the extra `interop`; raises `ExportError` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        raise ExportError(
            f"{problem.name} is not installed, which this format is read by or compared with: "
            "pip install -c constraints.txt '.[interop]'"
        ) from problem


class _OfTorch:
    """A tensor whose bytes are read from its place in the file when they are asked for: mapped
    pages would stay resident."""

    def __init__(self, path: Path, tensor: Any) -> None:
        self.path, self.shape, self.stride = path, tuple(tensor.shape), tensor.stride()
        kind = str(tensor.dtype).removeprefix("torch.")
        self.dtype = np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
        start = tensor.untyped_storage()._checkpoint_offset  # of torch.load to "meta", since 2.7
        if start is None:
            raise FormatError(f"{path} is of PyTorch's old format: save it again in its zip format")
        self.offset = start + tensor.storage_offset() * self.dtype.itemsize

    def __getitem__(self, index: Any, /) -> np.ndarray:
        size = self.dtype.itemsize
        steps = zip(self.shape, self.stride, strict=True)
        count = 1 + sum((n - 1) * step for n, step in steps) if 0 not in self.shape else 0
        flat = np.fromfile(self.path, self.dtype, count, offset=self.offset)
        strides = [step * size for step in self.stride]
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides)[index]


def open_torch(path: Path) -> dict[str, Stored]:
    """The tensors of a file of `torch.save`: a state dict, or what lies in a training checkpoint
    under `ema` (averages are what is used), `model`, `state_dict` or `module`.

    Only tensors and plain values are unpickled, and only headers are read. Raises `FormatError` for
    a file with anything else in it.
    """
    torch = foreign("torch")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # a checkpoint's `args`
            found = torch.load(path, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as problem:
        said = str(problem).strip().split("\n")[0]
        raise FormatError(
            f"{path} is no whole file of tensors that can be read safely ({said}): save the state "
            "dict alone, in PyTorch's zip format"
        ) from problem
    for key in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    tensors = isinstance(found, Mapping) and found and all(map(torch.is_tensor, found.values()))
    if not tensors:
        raise FormatError(f"{path} has no tensors by name, nor under {', '.join(_INSIDE)}")
    return {str(name): _OfTorch(path, tensor) for name, tensor in found.items()}


def open_any(place: Path) -> dict[str, Stored]:
    """The tensors of a file of either kind, or of a folder: of its safetensors, or else of the one
    file of PyTorch in it.

    Raises `FileNotFoundError` when there is none, `FormatError` for several or damaged ones.
    """
    place = Path(place)
    if place.is_file():
        return open_torch(place) if place.suffix in SUFFIXES else open_tensors(place)
    if any(place.glob("*.safetensors")):
        return open_tensors(place)
    files = sorted(path for path in place.glob("*") if path.suffix in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{place} has neither safetensors nor {', '.join(SUFFIXES)} files")
    if len(files) > 1:
        listed = ", ".join(path.name for path in files)
        raise FormatError(f"{place} has several files of weights ({listed}): name the one")
    return open_torch(files[0])


def add_torch(folder: Path, *, name: str = "model.pt") -> Path:
    """Write a folder's safetensors once more as `torch.save` does, `{"model": tensors}`, and return
    where; all of them are in memory meanwhile."""
    load_file = foreign("safetensors.torch").load_file
    tensors = {key: x for path in sorted(Path(folder).glob("*.safetensors")) for key, x in
               load_file(path).items()}  # fmt: skip
    foreign("torch").save({"model": tensors}, path := Path(folder) / name)
    return path
