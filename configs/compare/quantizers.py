"""Quantizers under one budget: words kept in reconstructions, beside bits a pixel.

    python scripts/compare.py --variants configs/compare/quantizers.py --seconds 600 --out DIR

Every variant has the demo's patch backbone at f8 unless its name says otherwise; a name gives codes
a position x values a code. Hardware: two CPU cores. Measured: see LOG.md.
"""

CONFIG = "configs/demo/tokenizer.py"
COLUMNS = ("bits_per_px", "word_accuracy", "psnr_db", "ssim", "usage", "perplexity")

_Q = "--config.model.quantizer"


def _product(part: str, num_codes: int, *more: str) -> list[str]:
    return [f"{_Q}.name=product", f"{_Q}.part={part}", f"{_Q}.num_codes={num_codes}", *more]


_CODEBOOK = f"{_Q}.codebook"
VARIANTS = {
    "fsq 48x8": [],
    "fsq 16x512": _product("fsq", 16, f"{_Q}.levels=(8,8,8)"),
    "cosine vq 8x1024": _product("vq", 8),
    "ema vq 8x1024": _product("vq", 8, f"{_CODEBOOK}.learning=ema", f"{_CODEBOOK}.cosine=False"),
    "ibq 8x1024": _product("ibq", 8),
    "bsq 16x512": _product("bsq", 16, f"{_Q}.bits.bits=9"),
    "lfq 16x512": _product("lfq", 16, f"{_Q}.bits.bits=9"),
    "residual vq 8x1024": [
        f"{_Q}.name=residual", f"{_Q}.part=vq", f"{_Q}.num_codes=8", f"{_CODEBOOK}.cosine=False",
        f"{_CODEBOOK}.width=32",
    ],
    "cosine vq 1x1024": _product("vq", 1),
    "cosine vq 2x1024": _product("vq", 2),
    "cosine vq 4x1024": _product("vq", 4),
    "fsq 48x8 f16": ["--config.model.backbone.downsampling=16"],
    "fsq 192x8 f16": ["--config.model.backbone.downsampling=16", f"{_Q}.num_codes=192"],
}  # fmt: skip
