"""Proofreading: which element's words came out, and printing again those that did not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int

from blueprint.schema import Blueprint, Text
from evals.metrics.words import word_hits
from evals.readers import ReadLine, overlap

Codes = Int[np.ndarray, "y x Q"]
Read = Callable[[Codes], Sequence[ReadLine]]
Reprint = Callable[[Codes, Bool[np.ndarray, "y x"], int], Codes]


def element_reads(blueprint: Blueprint, lines: Sequence[ReadLine]) -> list[list[str]]:
    """For each text, the words read where it stands: a line belongs to the text it overlaps
    most."""
    boxes = [t.box.pixels(blueprint.width_px, blueprint.height_px) for t in blueprint.texts]
    reads: list[list[str]] = [[] for _ in boxes]
    for line in lines:
        shares = [overlap(line.box_px, box) for box in boxes]
        if shares and max(shares) > 0:
            reads[shares.index(max(shares))] += line.string.split()
    return reads


def lost_words(text: Text, read: Sequence[str]) -> list[str]:
    """The words of a text that were not read exactly."""
    words = [word for line in text.lines for word in line.split()]
    return [word for word, hit in zip(words, word_hits(words, read), strict=True) if not hit]


@dataclasses.dataclass(frozen=True)
class Proof:
    """A page as it was read: the words lost by text, in reading order, and how often it was printed
    again."""

    read: tuple[str, ...]
    lost: tuple[tuple[str, ...], ...]
    retries: int = 0

    @property
    def num_lost(self) -> int:
        """Words that did not come out."""
        return sum(map(len, self.lost))


def proof_of(blueprint: Blueprint, lines: Sequence[ReadLine]) -> Proof:
    """The first proof of a page."""
    reads = element_reads(blueprint, lines)
    pairs = zip(blueprint.texts, reads, strict=True)
    lost = tuple(tuple(lost_words(text, read)) for text, read in pairs)
    return Proof(tuple(line.string for line in lines), lost)


def lost_positions(
    blueprint: Blueprint, proof: Proof, grid: tuple[int, int]
) -> Bool[np.ndarray, "y x"]:
    """The code positions that the boxes of texts with lost words touch."""
    masked = np.zeros(grid, bool)
    for text, lost in zip(blueprint.texts, proof.lost, strict=True):
        if lost:
            left, top, width, height = text.box.pixels(grid[1], grid[0])
            rows = slice(int(top), int(np.ceil(top + height)))
            masked[rows, int(left) : int(np.ceil(left + width))] = True
    return masked


def proofread(
    blueprint: Blueprint, codes: Codes, *, read: Read, reprint: Reprint, max_retries: int
) -> tuple[Codes, Proof]:
    """Print what reads wrong again, in its own boxes only, and keep what reads better.

    `reprint(codes, masked, retry)` may change the masked positions alone.
    """
    best, proof = codes, proof_of(blueprint, read(codes))
    for retry in range(1, max_retries + 1):
        if proof.num_lost == 0:
            break
        tried = reprint(best, lost_positions(blueprint, proof, codes.shape[:2]), retry)
        again = proof_of(blueprint, read(tried))
        if again.num_lost < proof.num_lost:
            best, proof = tried, again
        proof = dataclasses.replace(proof, retries=retry)
    return best, proof
