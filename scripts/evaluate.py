"""Score a bundle: `python scripts/evaluate.py --bundle RUN --benchmark pages --n 96 --out DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blueprint.plan import to_svg
from evals import report
from evals.benchmarks import pages
from evals.readers import RapidReader
from pipeline import Bundle


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
    plans = bundle.plan([case.prompt for case in cases])
    encode, decode = (bundle.tokenizer.probes[name] for name in ("encode", "decode"))
    pictures: dict[str, list[np.ndarray]] = {
        "typeset": [case.pixels for case in cases],
        "reconstructed": [np.asarray(decode(encode(case.pixels[None]))[0]) for case in cases],
        "given_blueprint": [bundle.pixels(bundle.codes(case.blueprint)) for case in cases],
        "end_to_end": [bundle.pixels(bundle.codes(plan)) for plan in plans],
    }
    reads = {
        stage: [reader.words(p) for p in tqdm(drawn, desc=f"read {stage}", mininterval=5)]
        for stage, drawn in pictures.items()
    }
    scores = pages.score(cases, reads, plans, reader)
    svgs = [to_svg(plan, scale=2) for plan in plans]
    page = report.write(args.out, scores, cases, pictures, reads, plans=svgs)
    print(report.table(scores))
    print(f"open {page}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
