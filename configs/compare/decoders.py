"""Decoders under one budget: words printed given the blueprint, beside passes of the trunk a page.

    python scripts/compare.py --variants configs/compare/decoders.py --seconds 600 --out DIR

Every variant has the demo's trunk and codes, which `scripts/encode.py` writes first; they differ in
what a code sees (masked in parallel, causal in raster order, random in any order), in the head
(factorised, or a depth transformer) and in what they are told. Those with guidance are trained with
pages that are told nothing and print by a scale of 1.5. Hardware: one CPU core. Measured: see
LOG.md.
"""

CONFIG = "configs/demo/decoder.py"
COLUMNS = ("word_accuracy", "psnr_db", "code_accuracy", "num_passes")

_MODEL = "--config.model"
_LOCKED = f"{_MODEL}.conditioning.lock_regions=True"
_CAUSAL = f"{_MODEL}.objective=causal"
_RANDOM = f"{_MODEL}.objective=random"
_DEPTH = f"{_MODEL}.head=depth"
_EIGHT = "--config.press.num_passes=8"
_GUIDED = [
    "--config.drop_blueprint=0.1", "--config.drop_glyphs=0.1", "--config.press.guidance=1.5",
]  # fmt: skip
VARIANTS = {
    "masked": [],
    "masked, 8 passes": [_EIGHT],
    "masked, glyphs as ink": [f"{_MODEL}.conditioning.glyphs=ink"],
    "masked, no glyphs": [f"{_MODEL}.conditioning.glyphs=off"],
    "masked, locked": [_LOCKED],
    "masked, guided": _GUIDED,
    "masked, depth": [_DEPTH],
    "causal": [_CAUSAL],
    "causal, locked": [_CAUSAL, _LOCKED],
    "causal, depth": [_CAUSAL, _DEPTH],
    "random, 8 passes": [_RANDOM, _EIGHT],
    "random, 8 passes, locked": [_RANDOM, _EIGHT, _LOCKED],
    "random, 8 passes, guided": [_RANDOM, _EIGHT, *_GUIDED],
    "random, 8 passes, depth": [_RANDOM, _EIGHT, _DEPTH],
}
