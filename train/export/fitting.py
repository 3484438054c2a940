"""Whether stored arrays are those of a model, told for all of them at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from absl import logging

from train.export.table import Shapes
from train.export.tensors import FormatError, Stored

_NAMED = 12


def misfits(found: Mapping[str, Stored], wanted: Shapes) -> list[str]:
    """Every array that is missing, too many, of another shape or of a dtype that does not become
    the model's: a float may be narrower than it, whole numbers and truth values are the same."""
    lines = []
    for name in sorted({*found, *wanted}):
        if name not in found:
            lines.append(f"{name} is missing")
        elif name not in wanted:
            lines.append(f"{name} is not of the model")
        else:
            lines += misfit(name, found[name], *wanted[name])
    return lines


def misfit(name: str, stored: Stored, dtype: Any, shape: tuple[int, ...]) -> list[str]:
    """What keeps one array from its place, no line if nothing does."""
    there, here = np.dtype(stored.dtype), np.dtype(dtype)
    if tuple(stored.shape) != tuple(shape):
        return [f"{name} is {list(stored.shape)} and the config makes it {list(shape)}"]
    narrower = is_float(there) and is_float(here) and there.itemsize <= here.itemsize
    return (
        [] if narrower or there == here else [f"{name} is {there} and the config makes it {here}"]
    )


def is_float(dtype: Any) -> bool:
    """Whether a dtype is of floating point; numpy has no kind for bfloat16."""
    return np.dtype(dtype).kind not in "iub"


def is_finite(array: np.ndarray) -> bool:
    """Whether an array holds no NaN and no infinity."""
    return not is_float(array.dtype) or bool(np.isfinite(array).all())


def read_fitting(
    found: Mapping[str, Stored], wanted: Shapes, *, where: Any, not_finite: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """All arrays in the model's dtypes.

    Raises `FormatError` naming every one that does not fit, and the first that holds NaN or
    infinity, unless it was exported as one of `not_finite`, which is told.
    """
    if lines := misfits(found, wanted):
        raise FormatError(
            f"the arrays in {where} are not those of its config.json ({shown(lines)}): take both "
            "from one export"
        )
    arrays = {}
    for name, stored in found.items():
        array = np.asarray(stored[...])
        if not is_finite(array):
            if name not in not_finite:
                raise FormatError(
                    f"{name} in {where} holds numbers that are not finite: export an earlier step"
                )
            logging.warning("%s in %s holds numbers that are not finite", name, where)
        arrays[name] = array.astype(wanted[name][0], copy=False)
    return arrays


def shown(lines: list[str]) -> str:
    """The first of them, and how many more."""
    more = len(lines) - _NAMED
    return "; ".join(lines[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
