"""What a decoder's config says to another library, and what that library's weights ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from decoder.config import DecoderConfig
from train.config import build
from train.export import ExportError


def refuse(library: str, problems: list[str]) -> None:
    """Raise `ExportError` naming what of a decoder's config a library has no place for."""
    if problems:
        raise ExportError(
            f"{library} has no place for this decoder's {', '.join(problems)}: take "
            "--format bundle, or train one without"
        )


def grid_of(config: ConfigDict) -> tuple[int, int]:
    """Rows and columns of the codes of a config's pages."""
    f = build(DecoderConfig, config.model, path="config.model").conditioning.downsampling
    return config.data.page.height_px // f, config.data.page.width_px // f


def asked(config: ConfigDict, blocks: Mapping[str, Any], others: Mapping[str, Any]) -> ConfigDict:
    """A `config.model` with what weights ask for, but as it is written where it means that
    already."""
    model, made = build(DecoderConfig, config, path="config.model"), ConfigDict(config.to_dict())
    sizes = {name: value for name, value in blocks.items() if getattr(model.blocks, name) != value}
    if sizes and made.blocks.get("depth"):
        sizes = {**blocks, "depth": 0}
    made.blocks.update(sizes)
    made.update({name: value for name, value in others.items() if getattr(model, name) != value})
    return made
