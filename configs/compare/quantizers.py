"""Quantizers under one budget: words kept in reconstructions, beside bits a pixel.

    python scripts/compare.py --variants configs/compare/quantizers.py --seconds 600 --out DIR

Every variant has the demo's patch backbone at f8 unless its name says otherwise; a name gives codes
a position x values a code, mostly 144 bits in all. Those with text features need the recogniser of
`configs/demo/recogniser.py`, trained. Hardware: one CPU core. Measured: see LOG.md.
"""

CONFIG = "configs/demo/tokenizer.py"
COLUMNS = ("bits_per_px", "word_accuracy", "psnr_db", "ssim", "usage", "perplexity")

_Q = "--config.model.quantizer"


def _product(part: str, num_codes: int, *more: str) -> list[str]:
    return [f"{_Q}.name=product", f"{_Q}.part={part}", f"{_Q}.num_codes={num_codes}", *more]


_CODEBOOK = f"{_Q}.codebook"
_PLAIN = f"{_CODEBOOK}.cosine=False"
_NINE_BITS = f"{_CODEBOOK}.size=512"
_F16 = "--config.model.backbone.downsampling=16"
_EDGES, _FEATURES = "--config.losses.text_edges=1.0", "--config.losses.text_features=1.0"
VARIANTS = {
    "fsq 48x8": [],
    "fsq 48x8, text edges": [_EDGES],
    "fsq 16x512": _product("fsq", 16, f"{_Q}.levels=(8,8,8)"),
    "cosine vq 16x512": _product("vq", 16, _NINE_BITS),
    "ema vq 16x512": _product("vq", 16, _NINE_BITS, f"{_CODEBOOK}.learning=ema", _PLAIN),
    "ibq 16x512": _product("ibq", 16, _NINE_BITS),
    "bsq 16x512": _product("bsq", 16, f"{_Q}.bits.bits=9"),
    "lfq 16x512": _product("lfq", 16, f"{_Q}.bits.bits=9"),
    "residual vq 16x512": [
        f"{_Q}.name=residual", f"{_Q}.part=vq", f"{_Q}.num_codes=16", _PLAIN, _NINE_BITS,
        f"{_CODEBOOK}.width=128",
    ],
    "fsq 48x8, f16": [_F16],
    "fsq 192x8, f16": [_F16, f"{_Q}.num_codes=192"],
    "cosine vq 8x512": _product("vq", 8, _NINE_BITS),
    "cosine vq 4x512": _product("vq", 4, _NINE_BITS),
    "cosine vq 2x512": _product("vq", 2, _NINE_BITS),
    "cosine vq 1x512": _product("vq", 1, _NINE_BITS),
    "fsq 48x8, text features": [_FEATURES],
    "fsq 48x8, text edges and features": [_EDGES, _FEATURES],
}  # fmt: skip
