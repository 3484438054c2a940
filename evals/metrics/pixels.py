"""How far a picture is from the one it should be."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from skimage.metrics import structural_similarity


def psnr_db(a: UInt8[np.ndarray, "B Y X C"], b: UInt8[np.ndarray, "B Y X C"]) -> float:
    """Peak signal-to-noise ratio over all pages together; infinite for equal ones."""
    error = np.mean(np.square(a.astype(np.float64) - b))
    return float(10 * np.log10(255.0**2 / error)) if error else float("inf")


def ssim(a: UInt8[np.ndarray, "B Y X C"], b: UInt8[np.ndarray, "B Y X C"]) -> float:
    """Structural similarity (Wang et al. 2004), averaged over pages."""
    pairs = zip(a, b, strict=True)
    return float(np.mean([structural_similarity(x, y, channel_axis=-1) for x, y in pairs]))
