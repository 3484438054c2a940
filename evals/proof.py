"""Proofreading: which element's words came out, and printing again those that did not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int

from blueprint.schema import Blueprint, Text
from evals.metrics.words import word_hits
from evals.readers import ReadLine, overlap

Codes = Int[np.ndarray, "B y x Q"]
ReadFn = Callable[[Codes], Sequence[Sequence[ReadLine]]]
ReprintFn = Callable[[Sequence[int], Codes, Bool[np.ndarray, "B y x"], int], Codes]


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
    blueprints: Sequence[Blueprint],
    codes: Codes,
    *,
    read: ReadFn,
    reprint: ReprintFn,
    max_retries: int,
) -> tuple[Codes, list[Proof]]:
    """Print what reads wrong again, in its own boxes only, and keep what reads better; pages that
    lost something are printed together.

    `reprint(rows, codes, masked, retry)` is given those pages' indices and codes, and may change
    their masked positions alone.
    """
    best = codes.copy()
    proofs = list(map(proof_of, blueprints, read(codes)))
    for retry in range(1, max_retries + 1):
        rows = [i for i, proof in enumerate(proofs) if proof.num_lost]
        if not rows:
            break
        masked = np.stack(
            [lost_positions(blueprints[i], proofs[i], codes.shape[1:3]) for i in rows]
        )
        tried = reprint(rows, best[rows], masked, retry)
        for i, again, lines in zip(rows, tried, read(tried), strict=True):
            proof = proof_of(blueprints[i], lines)
            if proof.num_lost < proofs[i].num_lost:
                best[i], proofs[i] = again, proof
            proofs[i] = dataclasses.replace(proofs[i], retries=retry)
    return best, proofs
