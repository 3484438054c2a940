"""A prompt and its blueprint as one sequence of ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blueprint import codec, vocab
from blueprint.reading import PromptReader


def example(
    record: Mapping[str, Any],
    max_length: int,
    reader: PromptReader = PromptReader(),  # noqa: B008  # a frozen value
) -> dict[str, np.ndarray]:
    """`ids` int32 [T] padded to `max_length`, and `planned` bool [T]: which of them are the
    blueprint's.

    Raises `ValueError` with both lengths when the sequence is longer.
    """
    prompt = reader.ids(record["prompt"])
    plan = codec.encode(record["blueprint"])
    length = len(prompt) + len(plan)
    if length > max_length:
        raise ValueError(
            f"a prompt of {len(prompt)} ids and a blueprint of {len(plan)} exceed {max_length}: "
            "raise config.model.max_length"
        )
    ids = np.full(max_length, vocab.PAD, np.int32)
    ids[:length] = prompt + plan
    place = np.arange(max_length)
    return {"ids": ids, "planned": (place >= len(prompt)) & (place < length)}
