"""A quadrilateral of a picture, pulled straight."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from skimage.transform import ProjectiveTransform, warp

Quad = tuple[tuple[float, float], ...]  # four corners (x, y), clockwise from the top left


def rectified(
    picture: UInt8[np.ndarray, "Y X 3"], quad: Quad
) -> UInt8[np.ndarray, "height width 3"] | None:
    """What a quad frames, seen from the front: as wide and high as the longer of its opposite
    sides, in pixels; None if it frames nothing.

    Corners are shares of the picture's width and height, and are clipped to the picture. Raises
    `ValueError` unless there are four of them.
    """
    if len(quad) != 4:
        raise ValueError(f"a quad has four corners (x, y), clockwise from the top left: {quad}")
    height, width = picture.shape[:2]
    corners = np.clip(np.asarray(quad, np.float64), 0, 1) * (width, height)
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    wide, high = round(max(sides[0], sides[2])), round(max(sides[1], sides[3]))
    x, y = corners.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    if min(wide, high) < 1 or area < 1:
        return None
    straight = np.array([(0, 0), (wide, 0), (wide, high), (0, high)], np.float64)
    # Corners lie on the edges of pixels, skimage counts from their centres.
    there = ProjectiveTransform.from_estimate(straight - 0.5, corners - 0.5)
    if not there:
        return None
    crop = warp(picture, there, output_shape=(high, wide), order=3, mode="edge")
    return np.rint(crop * 255).clip(0, 255).astype(np.uint8)
