"""Score a bundle: `python scripts/evaluate.py --bundle RUN --benchmark pages --n 96 --out DIR`."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blueprint.plan import to_pixels, to_svg
from blueprint.schema import Blueprint
from evals import report
from evals.attribution import STAGES
from evals.benchmarks import pages
from evals.gallery import GalleryRow
from evals.readers import RapidReader
from evals.results import Attribution, MetricScore, Results, versions
from evals.scoring import Score
from pipeline import Bundle
from train.data.posters.pages import Page

CHUNK = 32  # pages planned and printed at once
SHEET_PAGES = 12
PLAN_SCORES = ("copy_fidelity", "valid_blueprints")
CONTROLS = {
    "blank_page": "blank", "frequent_words_page": "constant_100",
    "shuffled_targets": "shuffled", "typeset_ceiling": "typeset",
}  # fmt: skip


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
    results = _results(args.bundle, scores)
    page = report.write(args.out, results, _gallery(cases, pictures, reads, svgs))
    Image.fromarray(_sheet(cases, plans, pictures["end_to_end"])).save(args.out / "sheet.png")
    print(report.table(results))
    print(f"open {page} (a sheet of prompts, plans and prints: {args.out / 'sheet.png'})")


def _results(bundle: Path, scores: Mapping[str, Any]) -> Results:
    """The scores as they are reported; they have no intervals yet."""
    one = lambda value: Score(value, math.nan, math.nan)  # noqa: E731
    accuracy, controls = scores["word_accuracy"], scores["controls"]
    source = "Share of target words read exactly, as multisets; case and punctuation count. Ours."
    plans = {name: MetricScore(scores[name], math.nan, math.nan) for name in PLAN_SCORES}
    end = MetricScore(accuracy["end_to_end"], math.nan, math.nan, source)
    return Results(
        benchmark="pages", run=bundle.name, headline="word_accuracy",
        command=f"python {shlex.join(sys.argv)}", versions=versions(),
        reader={"engine": scores["reader"]}, seed=0, images_per_prompt=1,
        num_cases=scores["num_pages"], num_pictures=scores["num_pages"],
        metrics={"word_accuracy": end},
        controls={
            CONTROLS.get(name, name): {"word_accuracy": one(v)} for name, v in controls.items()
        },
        stages={stage: {"word_accuracy": one(value)} for stage, value in accuracy.items()},
        attribution=Attribution(scores["attribution"]), plans=plans,
    )  # fmt: skip


def _gallery(
    cases: Sequence[Page],
    pictures: Mapping[str, Sequence[np.ndarray]],
    reads: Mapping[str, Sequence[Sequence[str]]],
    plans: Sequence[str],
) -> list[GalleryRow]:
    return [
        GalleryRow(
            f"page_{i:04d}",
            case.prompt,
            tuple(text.string for text in case.blueprint.texts),
            {stage: drawn[i] for stage, drawn in pictures.items()},
            {stage: tuple(read[i]) for stage, read in reads.items()},
            {"domain": case.domain},
            plans[i],
        )
        for i, case in enumerate(cases)
    ]


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
