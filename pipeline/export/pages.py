"""Two tokenizers on the same pages: what every foreign one is compared by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8
from ml_collections import ConfigDict

from pipeline.tasks import load_model, tokenizer_task
from tokenizer.model import Tokenizer
from tokenizer.pixels import as_float
from train.config import build
from train.data.posters.canvas import PageStyle
from train.data.sources import Pages, heldout
from train.export import Parity
from train.export.parity import TOLERANCE

NUM_PAGES = 2
TIE = 2e-6


@dataclasses.dataclass(frozen=True)
class Foreign:
    """Their tokenizer over float32 pixels in [-1, 1] of [B Y X C]: `latents` are what the codebook
    is asked for, `codes` [B y x] what it answers, `decode` the pixels of codes, not clipped."""

    latents: Callable[[np.ndarray], np.ndarray]
    codes: Callable[[np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Ours:
    """The same of a run's tokenizer, in float32 whatever its config says, and its code vectors."""

    config: ConfigDict
    encode: Callable[[np.ndarray], tuple[Array, Array]]
    decode: Callable[[np.ndarray], Array]
    table: Float[Array, "V Z"]


def ours_of(run: Path) -> Ours:
    """A run's tokenizer as it is compared; see `Ours`."""
    loaded = load_model(run)
    config = ConfigDict(loaded.config.to_dict())
    config.model.dtype = "float32"
    task = tokenizer_task(config)
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: task.init(nnx.Rngs(0))))

    def asked(function: Callable[[Tokenizer, Array], Any]) -> Callable[..., Any]:
        made = jax.jit(lambda w, e, x: function(nnx.merge(graphdef, w, e), x))

        def ask(array: Any) -> Any:
            with jax.default_matmul_precision("highest"):  # an accelerator's default is coarser
                return made(loaded.weights, loaded.extra, jnp.asarray(array))

        return ask

    size = loaded.config.model.quantizer.codebook.size
    rows = asked(lambda model, codes: model.quantizer.lookup(codes))
    table = rows(np.arange(size)[None, None, :, None])[0, 0]
    return Ours(config, asked(_encode), asked(_decode), table)


def _encode(
    model: Tokenizer, pixels: Float[Array, "B Y X C"]
) -> tuple[Float[Array, "B y x Z"], Int[Array, "B y x"]]:
    z = model.encoder(pixels)
    return z, model.quantizer.quantize(z).codes[..., 0]


def _decode(model: Tokenizer, codes: Int[Array, "B y x"]) -> Float[Array, "B Y X C"]:
    """Pixels before they are clipped, which would hide what lies outside."""
    return model.decoder.paint(model.decoder.features(model.quantizer.lookup(codes[..., None])))


def inputs(config: ConfigDict) -> dict[str, UInt8[np.ndarray, "B Y X C"]]:
    """Held-out pages of the config's own kind, and noise that is higher than wide."""
    f, channels = config.model.backbone.downsampling, config.model.backbone.get("channels", 3)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (NUM_PAGES, 6 * f, 4 * f, channels), np.uint8)
    found = {"noise": noise}
    if channels == 3 and "page" in config.get("data", {}):
        style = heldout(build(PageStyle, config.data.page, path="config.data.page"))
        drawn = Pages(style, NUM_PAGES)
        pixels = np.stack([drawn[i]["pixels"] for i in range(NUM_PAGES)])
        whole = [side - side % f for side in pixels.shape[1:3]]
        found = {"pages": pixels[:, : whole[0], : whole[1]], **found}
    return found


def tied(
    z: Float[np.ndarray, "B y x Z"],
    table: Float[np.ndarray, "V Z"],
    one: Int[np.ndarray, "B y x"],
    other: Int[np.ndarray, "B y x"],
) -> np.ndarray:
    """Where two different codes are equally near to z, as far as float32 can tell: squared
    distances, in float64, that differ by at most `TIE` of the square of the longer vector."""
    z, table = z.astype(np.float64), table.astype(np.float64)
    near, far = (np.square(z - table[codes]).sum(-1) for codes in (one, other))
    scale = np.maximum(np.square(z).sum(-1), np.square(table).sum(-1).max())
    return (one != other) & (np.abs(near - far) <= TIE * scale)


def compare(run: Path, theirs: Foreign, parity: Parity) -> None:
    """Run both on the same pages and noise: latents, codes, and the pixels of our codes; pixels
    are in [-1, 1], with what lies outside not clipped.

    A code that differs where both are equally near (see `tied`) counts as equal and is counted as
    `ties`, of which there may be one in a hundred.
    """
    ours = ours_of(run)
    table = np.asarray(ours.table)
    for name, drawn in inputs(ours.config).items():
        pixels = np.asarray(as_float(jnp.asarray(drawn)))
        z, codes = (np.asarray(x) for x in ours.encode(pixels))
        tolerance = TOLERANCE * max(1.0, float(np.abs(z).max()))  # latents have no scale
        parity.numbers(f"latents of {name}", z, theirs.latents(pixels), tolerance=tolerance)
        found = theirs.codes(pixels)
        ties = tied(z, table, codes, found)
        parity.ids(f"codes of {name}", codes, np.where(ties, codes, found))
        entry = parity.found[f"codes of {name}"]
        entry |= {"ties": int(ties.sum()), "used": len(np.unique(codes))}
        entry["ok"] = entry["ok"] and bool(ties.mean() <= 0.01)
        parity.numbers(f"decoded pixels of {name}", np.asarray(ours.decode(codes)),
                       theirs.decode(codes))  # fmt: skip
