"""What a foreign VQGAN's families share: the table of a config, our settings for theirs, and the
form in which a codebook leaves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from tokenizer.model import TokenizerConfig
from tokenizer.weights import Dialect, codebook_name, names
from train.config import build
from train.export import ExportError, FormatError, Parity, Row, Stored, Table

UNIT = 1e-6
SHIFT = "extra/quantizer/shift"
LEFT_OUT = ("params/critic/*", "extra/critic/*", "extra/quantizer/share", SHIFT)


def build_model(model: ConfigDict) -> TokenizerConfig:
    """The dataclass of a `config.model`."""
    return build(TokenizerConfig, model, path="config.model")


def table_of(
    model: ConfigDict, target: str, wanting: Callable[[TokenizerConfig], list[str]], say: Dialect,
    constants: Mapping[str, np.ndarray] | None = None,
) -> Table:  # fmt: skip
    """The table of a tokenizer; raises `ExportError` naming all of it that `target` cannot express.

    The codebook comes in as `started`: training would else begin with k-means in its place.
    """
    config = build_model(model)
    if problems := wanting(config):
        raise ExportError(f"{target} cannot express {'; '.join(problems)}")
    rows = tuple(Row(theirs, ours, how) for theirs, ours, how in names(config, say))
    given = {"extra/quantizer/started": np.ones((), bool)}
    return Table(rows, left_out=LEFT_OUT, constants=constants or {}, given=given)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises `FormatError` for anything else."""
    try:
        found = json.loads(path.read_text())
    except ValueError as problem:
        raise FormatError(f"{path} is no JSON ({problem})") from problem
    if not isinstance(found, dict):
        raise FormatError(f"{path} holds no JSON object")
    return found


def with_settings(model: ConfigDict, settings: Mapping[str, Any]) -> ConfigDict:
    """A copy of a `config.model` with these settings, but for those of which it says nothing since
    they are the default."""
    found = ConfigDict(model.to_dict())
    found.update(_new(settings, found.to_dict(), dataclasses.asdict(build_model(model))))
    return found


def _new(
    settings: Mapping[str, Any], said: Mapping[str, Any], meant: Mapping[str, Any]
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            kept[key] = _new(value, said.get(key, {}), meant[key])
        elif key in said or value != meant[key]:
            kept[key] = value
    return {key: value for key, value in kept.items() if value != {}}


def are_unit(rows: Any) -> np.ndarray:
    """Which rows have length 1: squared, within `UNIT`, a few times float32's rounding."""
    return np.abs(np.square(np.asarray(rows, np.float64)).sum(axis=-1) - 1) <= UNIT


class _Settled:
    """A codebook that is in memory."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.shape, self.dtype = rows, rows.shape, rows.dtype

    def __getitem__(self, index: Any, /) -> np.ndarray:
        return self.rows[index]


def settled(
    model: ConfigDict, ours: dict[str, Stored], parity: Parity, *, to_unit: bool
) -> dict[str, Stored]:
    """The arrays with one codebook as it is used: `table` + `shift`, and under `cosine` with
    `to_unit` its rows at length 1.

    Rows without a shift, and those that have length 1 already, keep their bits, so that a second
    export is the first; of the others, whose bits must change, there is a note.
    """
    config = build_model(model).quantizer
    name = codebook_name(config)
    if name not in ours:
        return ours  # a table without this row says so
    before = rows = np.asarray(ours[name][...])
    if SHIFT in ours:
        shift = np.asarray(ours[SHIFT][...])
        rows = np.where(shift.any(axis=-1, keepdims=True), rows + shift, rows)
        if moved := int((rows != before).any(axis=-1).sum()):
            parity.notes.append(
                f"{moved} of {len(rows)} code vectors are table + shift, which come back as table"
            )
    if config.codebook.cosine and to_unit:
        longer = ~are_unit(rows)
        length = np.sqrt(np.square(rows.astype(np.float64)).sum(-1, keepdims=True)).clip(1e-6)
        rows = np.where(longer[:, None], rows / length, rows).astype(before.dtype)
        if count := int(longer.sum()):
            parity.notes.append(
                f"{count} of {len(rows)} code vectors had another length than 1 and are exported, "
                "and come back, at length 1, at which they are compared here"
            )
    return {**ours, name: _Settled(rows)} if rows is not before else ours
