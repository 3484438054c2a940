"""Prompt to proofread page: `python scripts/draw.py --bundle RUN "a prompt" --out DIR`.

Writes blueprint.json, blueprint.svg, page.png, proof.json (what was read back) and proof.png (the
plan beside the page); with --n above 1 into numbered folders. An edited blueprint.json given as
--blueprint is printed as it is. What a careful printer would send back is said first, type that the
bundle was measured not to print legibly among it: an evaluation on pages-sizes leaves that beside
the models, or its scores.json is given as --scores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blueprint.check import findings
from blueprint.formats import from_json, to_json
from blueprint.plan import to_pixels, to_svg
from blueprint.schema import Blueprint
from blueprint.wishes import from_json as wishes_from_json
from evals.evaluation import legible_px
from evals.proof import Proof
from evals.readers import RapidReader
from evals.report import sheet
from evals.results import load as load_results
from layers.quantized import WEIGHTS
from pipeline import Bundle
from sampling.policy import Policy


def draw(
    bundle: Bundle,
    blueprint: Blueprint,
    folder: Path,
    reader: RapidReader,
    *,
    seed: int,
    retries: int,
) -> Proof:
    """Print and proofread one blueprint into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "blueprint.json").write_text(to_json(blueprint))
    (folder / "blueprint.svg").write_text(to_svg(blueprint))
    codes = bundle.codes([blueprint], seed=seed)[0]
    codes, proof = bundle.proofread(blueprint, codes, reader, max_retries=retries)
    page = bundle.pixels(codes[None])[0]
    Image.fromarray(page).save(folder / "page.png")
    pair = [to_pixels(blueprint), page]
    Image.fromarray(sheet(pair, ["blueprint", "page"], cell_px=512)).save(folder / "proof.png")
    (folder / "proof.json").write_text(json.dumps(dataclasses.asdict(proof), indent=1) + "\n")
    return proof


def main() -> None:
    """Parse the flags, plan, draw."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("prompt", nargs="?", default="")
    flags.add_argument("--bundle", type=Path, required=True)
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--blueprint", type=Path)
    flags.add_argument("--wishes", type=Path, help="JSON: palette, boxes by string, keep_free")
    flags.add_argument("--scores", type=Path, help="of an evaluation, for the least legible type")
    flags.add_argument("--num-tries", type=int, default=1, help="keep the best of so many plans")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--n", type=int, default=1)
    flags.add_argument("--max-retries", type=int, default=4)
    flags.add_argument(
        "--weights", choices=WEIGHTS, default="float32", help="of the models' products"
    )
    args = flags.parse_args()
    if args.blueprint:
        plans = [from_json(args.blueprint.read_text())]
        bundle = Bundle(args.bundle, weights=args.weights)
    elif args.prompt:
        bundle = Bundle(args.bundle, weights=args.weights)
        policy = Policy(0.7) if args.n > 1 else Policy()
        wishes = wishes_from_json(args.wishes.read_text()) if args.wishes else None
        prompts = [args.prompt] * args.n
        how = {"seed": args.seed, "wishes": wishes, "num_tries": args.num_tries}
        plans = bundle.plan(prompts, policy=policy, **how)
    else:
        raise ValueError("give a prompt, or a blueprint with --blueprint")
    least = legible_px(load_results(args.scores)) if args.scores else bundle.legible_px
    reader = RapidReader()
    for i, plan in enumerate(plans):
        folder = args.out / f"{i:02d}" if len(plans) > 1 else args.out
        for finding in findings(plan, legible_px=least):
            print(f"{folder}: {finding.rule}: {finding.path} {finding.message}")
        proof = draw(bundle, plan, folder, reader, seed=args.seed + i, retries=args.max_retries)
        failed = " ".join(word for words in proof.lost for word in words)
        print(
            f"{folder}/page.png: "
            + (f"words that failed: {failed}" if failed else "every word reads")
        )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
