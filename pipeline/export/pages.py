"""Two tokenizers on the same pages: what every foreign one is compared by."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ours:
    """What our tokenizer makes of pixels: the same, with pixels as they are before they are
    clipped, which would hide what lies outside, and its code vectors."""

    latents: Float[Array, "B y x Z"]
    codes: Int[Array, "B y x"]
    painted: Float[Array, "B Y X C"]
    table: Float[Array, "V Z"]


def asked(model: Tokenizer, pixels: Float[Array, "B Y X C"]) -> Ours:
    """Our tokenizer on pixels."""
    latents = model.encoder(pixels)
    codes = model.quantizer.quantize(latents).codes
    painted = model.decoder.paint(model.decoder.features(model.quantizer.lookup(codes)))
    every = jnp.arange(model.quantizer.codebook_size)[None, None, :, None]
    return Ours(latents, codes[..., 0], painted, model.quantizer.lookup(every)[0, 0])


def ours_of(run: Path, pixels: Float[np.ndarray, "B Y X C"]) -> Ours:
    """A run's tokenizer on pixels, in float32 whatever its config says."""
    loaded = load_model(run)
    made = _compiled(json.dumps(loaded.config.to_dict(), sort_keys=True))
    with jax.default_matmul_precision("highest"):  # an accelerator's default is coarser
        found = made(loaded.weights, loaded.extra, jnp.asarray(pixels))
    return jax.tree.map(np.asarray, found)


@functools.lru_cache(maxsize=2)
def _compiled(said: str) -> Callable[..., Ours]:
    """`asked` of a config's tokenizer, once for all runs and formats that are compared."""
    config = ConfigDict(json.loads(said))
    config.model.dtype = "float32"
    task = tokenizer_task(config)
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: task.init(nnx.Rngs(0))))
    return jax.jit(lambda weights, extra, x: asked(nnx.merge(graphdef, weights, extra), x))


def inputs(config: ConfigDict) -> dict[str, UInt8[np.ndarray, "B Y X C"]]:
    """Held-out pages of the config's own kind, and as large a one of noise."""
    f, channels = config.model.backbone.downsampling, config.model.backbone.get("channels", 3)
    found, sides = {}, (6 * f, 4 * f)
    if channels == 3 and "page" in config.get("data", {}):
        style = heldout(build(PageStyle, config.data.page, path="config.data.page"))
        drawn = Pages(style, NUM_PAGES)
        pixels = np.stack([drawn[i]["pixels"] for i in range(NUM_PAGES)])
        sides = tuple(side - side % f for side in pixels.shape[1:3])
        found["pages"] = pixels[:, : sides[0], : sides[1]]
    rng = np.random.default_rng(0)
    found["noise"] = rng.integers(0, 256, (1, *sides, channels), np.uint8)
    return found


def tied(
    z: tuple[Float[np.ndarray, "B y x Z"], Float[np.ndarray, "B y x Z"]],
    table: Float[np.ndarray, "V Z"],
    codes: tuple[Int[np.ndarray, "B y x"], Int[np.ndarray, "B y x"]],
) -> np.ndarray:
    """Where two codes differ and rounding alone decides: in float64 their squared distances from
    our z are nearer to each other than the way from our z to theirs can make them, or than `TIE`
    of the largest square, which is what float32 loses in a sum of squares."""
    (ours, theirs), table = (x.astype(np.float64) for x in z), table.astype(np.float64)
    one, other = (table[chosen] for chosen in codes)
    square = lambda x: np.square(x).sum(-1)  # noqa: E731
    gap = np.abs(square(ours - one) - square(ours - other))
    moved = 2 * np.sqrt(square(ours - theirs) * square(one - other))
    scale = np.maximum(square(ours), square(table).max())
    return (codes[0] != codes[1]) & (gap <= moved + TIE * scale)


def compare(run: Path, theirs: Foreign, parity: Parity) -> None:
    """Run both on the same pages and noise: latents, codes, and the pixels of our codes; pixels
    are in [-1, 1], with what lies outside not clipped.

    A code that differs where rounding decides (see `tied`) is counted among `ties`, of which there
    may be one in a hundred, and not against `equal`. Latents have no scale: their tolerance is the
    usual one times the largest of them, and ten times that on pages, whose plain grounds float32
    handles badly (PyTorch's was found 6.5e-4 away from its own float64, ours 4.3e-5).
    """
    drawn = inputs(ConfigDict(json.loads((Path(run) / "config.json").read_text())))
    pixels = np.asarray(as_float(jnp.asarray(np.concatenate(list(drawn.values())))))
    ours, begin = ours_of(run, pixels), 0
    z, codes = np.asarray(ours.latents), np.asarray(ours.codes)
    their_z, their_codes = theirs.latents(pixels), theirs.codes(pixels)
    their_painted = theirs.decode(codes)
    ties = tied((z, their_z), np.asarray(ours.table), (codes, their_codes))
    for name, rows in drawn.items():
        part = slice(begin, begin := begin + len(rows))
        tolerance = TOLERANCE * max(1.0, float(np.abs(z).max())) * (10 if name == "pages" else 1)
        parity.numbers(f"latents of {name}", z[part], their_z[part], tolerance=tolerance)
        settled = np.where(ties[part], codes[part], their_codes[part])
        parity.ids(f"codes of {name}", codes[part], settled)
        entry = parity.found[f"codes of {name}"]
        entry |= {"ties": int(ties[part].sum()), "used": len(np.unique(codes[part]))}
        entry["ok"] = entry["ok"] and bool(ties[part].mean() <= 0.01)
        parity.numbers(f"decoded pixels of {name}", ours.painted[part], their_painted[part])
