"""Prompts to proofread pages: `python scripts/draw.py --bundle RUN "a prompt" --out DIR`.

Writes blueprint.json, blueprint.svg, page.png, proof.json (what was read back) and proof.png (the
plan beside the page); with --n above 1 into numbered folders. An edited blueprint.json given as
--blueprint is printed as it is. What a careful printer would send back is said first, type that the
bundle was measured not to print legibly among it: an evaluation on pages-sizes leaves that beside
the models, or its scores.json is given as --scores.

--prompts FILE has a prompt a line (or, if it ends in .jsonl, objects with a `prompt`), each drawn
into a numbered folder: plans, prints and proofs go on side by side, --batch pages at once. Started
again it goes on where it was: DIR/drawn.jsonl says what is done.

--preview [N] writes preview.webp too: the page after each N rows of codes of a causal decoder, or
passes of another, where what is yet to come is the canonical page, pale.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blueprint.check import findings
from blueprint.formats import from_json, to_json
from blueprint.plan import to_pixels, to_svg
from blueprint.schema import Blueprint
from blueprint.wishes import from_json as wishes_from_json
from evals.evaluation import legible_px
from evals.readers import RapidReader, ReaderError, ReadLine, read_all
from evals.report import sheet
from evals.results import load as load_results
from pipeline import Bundle
from pipeline.drawing import Drawn, draw_all
from sampling.policy import Policy
from scripts.pressing import add_flags, settings

FRAME_MS, LAST_MS = 120, 3000
DONE = "drawn.jsonl"


def keep(drawn: Drawn, folder: Path) -> None:
    """Put a page and what is known of it into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "blueprint.json").write_text(to_json(drawn.blueprint))
    (folder / "blueprint.svg").write_text(to_svg(drawn.blueprint))
    Image.fromarray(drawn.page).save(folder / "page.png")
    pair = [to_pixels(drawn.blueprint), drawn.page]
    Image.fromarray(sheet(pair, ["blueprint", "page"], cell_px=512)).save(folder / "proof.png")
    proof = json.dumps(dataclasses.asdict(drawn.proof), indent=1)
    (folder / "proof.json").write_text(proof + "\n")


def watched(
    bundle: Bundle, blueprint: Blueprint, folder: Path, *, seed: int, every: int
) -> np.ndarray:
    """The codes of one page, which a moving picture in its folder shows being printed."""
    frames = []
    for part in bundle.stream([blueprint], seed=seed, every=every):
        frames.append(Image.fromarray(bundle.preview(part)[0]))
    folder.mkdir(parents=True, exist_ok=True)
    shown_ms = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
    more = {"save_all": True, "append_images": frames[1:], "duration": shown_ms, "loop": 0}
    frames[0].save(folder / "preview.webp", lossless=True, **more)
    return part.codes[0]


def prompts_of(path: Path) -> list[str]:
    """The prompts of a file; raises `ValueError` naming the line that has none."""
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    if path.suffix != ".jsonl":
        return lines
    prompts = []
    for i, line in enumerate(lines):
        try:
            prompts.append(json.loads(line)["prompt"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f'{path}, line {i + 1}: give an object {{"prompt": ...}}') from None
    return prompts


def done_before(out: Path, prompts: Sequence[str], seed: int) -> set[int]:
    """The numbers of prompts whose page is there. A last line that a killed call left unfinished is
    dropped. Raises `ValueError` when there are pages of other prompts."""
    path = out / DONE
    whole, newline, torn = (path.read_text() if path.exists() else "").rpartition("\n")
    if torn:
        path.write_text(whole + newline)
    rows = [json.loads(line) for line in whole.splitlines()]
    for row in rows:
        number = row["number"]
        if number >= len(prompts) or (row["prompt"], row["seed"]) != (prompts[number], seed):
            raise ValueError(
                f"{path} has page {number} of another prompt or seed: give another --out"
            )
    return {row["number"] for row in rows}


class Drawing:
    """One call of the script: which pages, where to, and what is said of them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.bundle = Bundle(args.bundle, **settings(args))
        scores = load_results(args.scores) if args.scores else None
        self.least_px = legible_px(scores) if scores else self.bundle.legible_px
        self.wishes = wishes_from_json(args.wishes.read_text()) if args.wishes else None
        self.reader = RapidReader()

    def folder(self, number: int, count: int) -> Path:
        """Where a page goes."""
        if self.args.prompts:
            return self.args.out / f"{number:05d}"
        return self.args.out / f"{number:02d}" if count > 1 else self.args.out

    def plans(self, prompts: Sequence[tuple[int, str]]) -> Iterable[tuple[int, Blueprint]]:
        """A plan of each numbered prompt, as they are done."""
        args, how = self.args, {"seed": self.args.seed, "wishes": self.wishes}
        if args.num_tries > 1:
            texts = [prompt for _, prompt in prompts]
            plans = self.bundle.plan(texts, num_tries=args.num_tries, **how)
            return [(number, plan) for (number, _), plan in zip(prompts, plans, strict=True)]
        policy = Policy(0.7) if args.n > 1 else Policy()
        return self.bundle.plans_as_made(prompts, policy=policy, **how)

    def read(self, pages: np.ndarray) -> list[Sequence[ReadLine]]:
        """The lines of pages, of many in processes."""
        if self.args.readers < 2 or len(pages) < 4:
            return [self.reader.read(page) for page in pages]
        how = {"num_processes": self.args.readers, "progress": False}
        found = read_all(self.reader, list(pages), **how)
        for page in found:
            if page.problem:
                raise ReaderError(page.problem)
        return [page.lines for page in found]

    def print_pages(
        self, numbers: Sequence[int], blueprints: Sequence[Blueprint], *, count: int
    ) -> np.ndarray:
        """Their codes, each by a seed of its own."""
        args, seeds = self.args, [self.args.seed + number for number in numbers]
        for number, blueprint in zip(numbers, blueprints, strict=True):
            for finding in findings(blueprint, legible_px=self.least_px):
                where = self.folder(number, count)
                tqdm.write(f"{where}: {finding.rule}: {finding.path} {finding.message}")
        if args.preview is None:
            return self.bundle.codes(blueprints, seed=seeds)
        watch = functools.partial(watched, self.bundle, every=args.preview)
        rows = zip(numbers, blueprints, seeds, strict=True)
        return np.stack([watch(plan, self.folder(n, count), seed=s) for n, plan, s in rows])

    def draw(self, plans: Iterable[tuple[int, Blueprint]], *, count: int) -> Iterable[Drawn]:
        """The pages of plans, kept and told as they are done."""
        args = self.args
        how = {"batch_size": args.batch, "max_retries": args.max_retries}
        print_pages = functools.partial(self.print_pages, count=count)
        pages = draw_all(self.bundle, plans, self.read, print_pages=print_pages, **how)
        for drawn in tqdm(pages, total=count, desc="draw", unit="page", disable=count < 2):
            folder = self.folder(drawn.number, count)
            keep(drawn, folder)
            failed = " ".join(word for words in drawn.proof.lost for word in words)
            said = f"words that failed: {failed}" if failed else "every word reads"
            tqdm.write(f"{folder}/page.png: {said}")
            yield drawn

    def file(self, prompts: Sequence[str]) -> None:
        """All prompts of a file that have no page yet."""
        args = self.args
        args.out.mkdir(parents=True, exist_ok=True)
        there = done_before(args.out, prompts, args.seed)
        left = [(i, prompt) for i, prompt in enumerate(prompts) if i not in there]
        num_lost, num_pages = 0, 0
        with (args.out / DONE).open("a") as file:
            for drawn in self.draw(self.plans(left), count=len(left)):
                row = {"number": drawn.number, "prompt": prompts[drawn.number], "seed": args.seed,
                       "lost": [w for words in drawn.proof.lost for w in words]}  # fmt: skip
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                num_pages, num_lost = num_pages + 1, num_lost + bool(row["lost"])
        print(f"{num_pages} pages in {args.out}, {num_lost} of them with words that failed")


def main() -> None:
    """Parse the flags, plan, draw."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("prompt", nargs="?", default="")
    flags.add_argument("--bundle", type=Path, required=True)
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--blueprint", type=Path)
    flags.add_argument("--prompts", type=Path, help="a file with a prompt a line")
    flags.add_argument("--wishes", type=Path, help="JSON: palette, boxes by string, keep_free")
    flags.add_argument("--scores", type=Path, help="of an evaluation, for the least legible type")
    flags.add_argument("--num-tries", type=int, default=1, help="keep the best of so many plans")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--n", type=int, default=1)
    flags.add_argument("--max-retries", type=int, default=4)
    flags.add_argument("--batch", type=int, default=16, help="pages that are printed at once")
    flags.add_argument("--readers", type=int, default=1, help="processes that read pages")
    flags.add_argument("--preview", type=int, nargs="?", const=1, metavar="N")
    add_flags(flags)
    args = flags.parse_args()
    if sum(map(bool, (args.prompt, args.blueprint, args.prompts))) != 1:
        raise ValueError("give one of: a prompt, a blueprint with --blueprint, a file --prompts")
    if args.n > 1 and not args.prompt:
        raise ValueError("--n is for one prompt: repeat lines of a file, or change the --seed")
    prompts = prompts_of(args.prompts) if args.prompts else [args.prompt] * args.n
    drawing = Drawing(args)
    if args.prompts:
        return drawing.file(prompts)
    plans = [(0, from_json(args.blueprint.read_text()))] if args.blueprint else None
    plans = plans or drawing.plans(list(enumerate(prompts)))
    for _ in drawing.draw(plans, count=args.n):
        pass


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
