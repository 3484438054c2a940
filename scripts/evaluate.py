"""Score a bundle: `python scripts/evaluate.py --bundle RUN --benchmark pages --n 96 --out DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blueprint.plan import to_pixels, to_svg
from blueprint.schema import Blueprint
from evals import report
from evals.attribution import STAGES
from evals.benchmarks import pages
from evals.readers import RapidReader
from pipeline import Bundle
from train.data.posters.pages import Page

CHUNK = 32  # pages planned and printed at once
SHEET_PAGES = 12


def main() -> None:
    """Parse the flags, make every stage's pages, read them, report."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--bundle", type=Path, required=True)
    flags.add_argument("--benchmark", choices=("pages",), default="pages")
    flags.add_argument("--n", type=int, default=96)
    flags.add_argument("--out", type=Path, required=True)
    args = flags.parse_args()
    bundle, reader = Bundle(args.bundle), RapidReader()
    width_px, height_px = bundle.page_px
    cases = pages.cases(args.n, width_px=width_px, height_px=height_px)
    plans: list[Blueprint] = []
    canonical: list[np.ndarray] = []  # a control: no decoder at all
    pictures: dict[str, list[np.ndarray]] = {stage: [] for stage in STAGES}
    for start in tqdm(range(0, args.n, CHUNK), desc="print", unit="chunk", mininterval=5):
        chunk = cases[start : start + CHUNK]
        planned = bundle.plan([case.prompt for case in chunk], seed=start)
        typeset = np.stack([case.pixels for case in chunk])
        pictures["typeset"] += list(typeset)
        pictures["reconstructed"] += list(bundle.pixels(bundle.tokenizer.probes["encode"](typeset)))
        given = bundle.codes([case.blueprint for case in chunk])
        pictures["given_blueprint"] += list(bundle.pixels(given))
        pictures["end_to_end"] += list(bundle.pixels(bundle.codes(planned)))
        canonical += list(bundle.copied([case.blueprint for case in chunk]))
        plans += planned
    reads = {
        stage: [reader.words(p) for p in tqdm(drawn, desc=f"read {stage}", mininterval=5)]
        for stage, drawn in pictures.items()
    }
    copied = [reader.words(page) for page in canonical]
    scores = pages.score(cases, reads, plans, reader, copied=copied)
    svgs = [to_svg(plan, scale=2) for plan in plans]
    page = report.write(args.out, scores, cases, pictures, reads, plans=svgs)
    Image.fromarray(_sheet(cases, plans, pictures["end_to_end"])).save(args.out / "sheet.png")
    print(report.table(scores))
    print(f"open {page} (a sheet of prompts, plans and prints: {args.out / 'sheet.png'})")


def _sheet(cases: Sequence[Page], plans: list[Blueprint], prints: list[np.ndarray]) -> np.ndarray:
    """Prompt, plan and print of some pages of every domain, in turn."""
    domains = sorted({case.domain for case in cases})
    by_domain = [[i for i, case in enumerate(cases) if case.domain == d] for d in domains]
    chosen = [i for several in zip(*by_domain, strict=False) for i in several][:SHEET_PAGES]
    pairs = []
    for i in chosen:
        plan = to_pixels(plans[i], scale=256 / plans[i].width_px)
        large = Image.fromarray(prints[i]).resize(plan.shape[1::-1], Image.Resampling.LANCZOS)
        pairs.append(np.concatenate([plan, np.asarray(large)], axis=0))
    return report.sheet(pairs, [cases[i].prompt for i in chosen])


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
