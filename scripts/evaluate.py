"""Score pictures on a benchmark: a bundle's, or those of any system.

    python scripts/evaluate.py --bundle RUN --benchmark pages --n 96 --out DIR
    python scripts/evaluate.py --benchmark longtext_en --data PATH --prompts FILE
    python scripts/evaluate.py --benchmark longtext_en --data PATH --images DIR --out DIR
    python scripts/evaluate.py --benchmark longtext_en --data PATH --images controls --out DIR

`--prompts` writes what a system is to be given and stops; `--images` scores the pictures that it
made (`evals/pictures.py` says how they are named), or the controls alone, whose typeset pages stay
in `typeset` of --out, a folder that `--images` takes. `pages`, `pages-dense` and `pages-sizes` are
our own and need no data. Several processes (`scripts/launch/`) share the pages of a --bundle: each
prints and reads its chunks, the first one scores. `--watch` evaluates a bundle again whenever one
of its models has a newer checkpoint, each time into a folder of its own, with a line of all scores
in `scores.jsonl`. `--mesh`, `--passes`, `--kv-cache` and `--weights` say how it prints
(`scripts/pressing.py`); what is measured of another press or other weights than the bundle's own is
not left beside its models.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blueprint.plan import to_pixels, to_svg
from blueprint.schema import Blueprint
from evals import report
from evals.benchmarks import BENCHMARKS, open_benchmark
from evals.controls import Control, ControlSettings, controls, keep_typeset, typeset_readings
from evals.evaluation import Readings, Told, evaluated, with_stages
from evals.gallery import GalleryRow
from evals.least_type import LeastType, keep, measured
from evals.pictures import as_reading, gather, read_pictures, write_prompts
from evals.readers import Reader, load, open_reader, read_all
from evals.results import Results
from evals.scoring import Benchmark, Case, Reading
from evals.sums import CaseSums, case_sums
from evals.watching import every, watch
from scripts.pressing import add_flags, is_own, settings
from train.distributed import Cluster, start
from train.export.seal import is_sealed

if TYPE_CHECKING:  # the models are loaded only for a bundle of them
    from pipeline import Bundle
    from pipeline.staging import Staged

SHEET_PAGES = 12
WATCH_S = 30.0
DAY_S = 86400.0


@dataclasses.dataclass(frozen=True)
class Scored:
    """What was scored, the pictures to show of it, and what it says of the least legible type."""

    results: Results
    sums: CaseSums
    gallery: list[GalleryRow]
    sheet: np.ndarray | None = None
    least_type: LeastType | None = None


class Proofreader:
    """Reads and scores pictures, as the flags have it."""

    def __init__(self, args: argparse.Namespace, cluster: Cluster) -> None:
        self.args, self.cluster = args, cluster
        self.reader: Reader = open_reader(args.reader)
        cache = args.cache or args.out / "reads"
        self.read = functools.partial(
            read_all, self.reader, cache=cache, num_processes=args.num_readers
        )
        self.settings = ControlSettings(
            seed=args.seed, num_typeset=args.num_typeset, page=_own_page, font=args.font
        )

    def told(self, run: str, missing: Sequence[str] = ()) -> Told:
        """What the report says of this evaluation."""
        return Told(run, f"python {shlex.join(sys.argv)}", self.args.seed, tuple(missing))

    def controls(
        self,
        benchmark: Benchmark,
        cases: Sequence[Case],
        readings: Readings,
    ) -> dict[str, Control]:
        """All controls beside what was read on a system's pictures."""
        return controls(benchmark, cases, self.read, self.settings, readings=readings)

    def pictures(self, benchmark: Benchmark, cases: Sequence[Case]) -> Scored:
        """The scores of a folder's pictures."""
        args = self.args
        found = gather(
            args.images, cases, images_per_prompt=args.images_per_prompt, missing_ok=args.missing_ok
        )
        readings, problems = read_pictures(found, cases, self.read, crops=benchmark.crops)
        for note in found.notes:
            print(note)
        told = self.told(args.images.name, (*found.missing, *problems))
        beside = self.controls(benchmark, cases, readings)
        sums = case_sums(benchmark, cases, readings)
        results = evaluated(benchmark, cases, sums, beside, self.reader, told=told)
        return Scored(results, sums, _gallery(cases, {"picture": readings}))

    def controls_alone(self, benchmark: Benchmark, cases: Sequence[Case]) -> Scored:
        """The typeset pages scored as if a system had made them, and kept."""
        found = typeset_readings(benchmark, cases, self.read, self.settings)
        readings, problems = found
        folder = self.args.out / "typeset"
        num_kept = keep_typeset(cases, folder, self.settings)
        print(f"{num_kept} typeset pages, to be scored with --images: {folder}")
        beside = controls(benchmark, cases, self.read, self.settings, typeset=found)
        told = self.told("typeset by us", problems)
        sums = case_sums(benchmark, cases, readings)
        results = evaluated(benchmark, cases, sums, beside, self.reader, told=told)
        return Scored(results, sums, _gallery(cases, {"typeset": readings}))

    def bundle(self, bundle: Bundle, name: str) -> Scored:
        """A bundle's pages: all stages of our own benchmark, the last one of others."""
        from pipeline.staging import SAID

        benchmark, cases = _chosen(self.args, page_px=bundle.page_px)
        own = benchmark.redrawn is not None
        made = self._made(bundle, benchmark, cases)
        stages = {
            stage: self._readings(benchmark, cases, drawn) for stage, drawn in made.pages.items()
        }
        beside = self.controls(benchmark, cases, stages["end_to_end"])
        told = self.told(name)
        sums = case_sums(benchmark, cases, stages["end_to_end"])
        results = evaluated(benchmark, cases, sums, beside, self.reader, told=told)
        svgs = [to_svg(plan, scale=2) for plan in made.plans]
        if not own:
            return Scored(results, sums, _gallery(cases, stages, svgs))
        results = with_stages(results, benchmark, cases, stages, made.plans, said=SAID)
        shown = {stage: rows for stage, rows in stages.items() if stage in results.stages}
        sheet = _sheet(cases, made.plans, made.pages["end_to_end"])
        least = measured(results, bundle.weights)
        return Scored(results, sums, _gallery(cases, shown, svgs), sheet, least)

    def _made(self, bundle: Bundle, benchmark: Benchmark, cases: Sequence[Case]) -> Staged:
        """The pages of every stage (of our own benchmark; else of the last), by all processes that
        there are; those past the first end here."""
        from pipeline.staging import make_share, printed, staged, take_shares

        args, cluster, typeset = self.args, self.cluster, None
        if benchmark.redrawn is not None:
            typeset = [case.pixels for case in cases]  # type: ignore[attr-defined]  # PageCases
        if cluster.num_processes == 1:
            if typeset is None:
                return printed(bundle, cases, seed=args.seed)
            return staged(bundle, cases, typeset, seed=args.seed)
        folder = args.out / "shares"
        share, made = make_share(
            bundle, cases, typeset, seed=args.seed, cluster=cluster, folder=folder
        )
        for drawn in made.pages.values():  # now, by whoever made them: the first finds it cached
            self._readings(benchmark, share, drawn)
        cluster.barrier("pages printed and read", DAY_S)
        if not cluster.is_first:
            sys.exit()
        return take_shares(cases, folder)

    def _readings(
        self, benchmark: Benchmark, cases: Sequence[Case], drawn: Sequence[np.ndarray]
    ) -> list[list[Reading]]:
        quads = [case.quads for case in cases] if benchmark.crops else None
        found = self.read(drawn, quads=quads)
        height, width = drawn[0].shape[:2]
        pairs = zip(found, drawn, strict=True)
        return [[as_reading(read, page, size_px=(width, height))] for read, page in pairs]


def _own_page(case: Case) -> np.ndarray | None:
    """The page that a case has of its own, or the picture that it begins with."""
    if case.source is not None:
        return load(case.source)
    return getattr(case, "pixels", None)  # our own pages


def _gallery(
    cases: Sequence[Case], stages: dict[str, list[list[Reading]]], plans: Sequence[str] = ()
) -> list[GalleryRow]:
    """A row for each picture of each case."""
    last = list(stages.values())[-1]
    rows = []
    for i, case in enumerate(cases):
        for k in range(len(last[i])):
            own = {stage: readings[i][k] for stage, readings in stages.items()}
            rows.append(
                GalleryRow(
                    case.name if len(last[i]) == 1 else f"{case.name} ({k})",
                    case.prompt, case.targets,
                    {stage: reading.look for stage, reading in own.items() if reading.look},
                    {s: r.strings or r.crops for s, r in own.items() if r.look},
                    dict(case.groups), plans[i] if plans else None, case.language,
                )
            )  # fmt: skip
    return rows


def _sheet(
    cases: Sequence[Case], plans: Sequence[Blueprint], prints: Sequence[np.ndarray]
) -> np.ndarray:
    """Prompt, plan and print of some pages of every domain, in turn."""
    domains = sorted({case.groups["domain"] for case in cases})
    by_domain = [[i for i, c in enumerate(cases) if c.groups["domain"] == d] for d in domains]
    chosen = [i for several in zip(*by_domain, strict=False) for i in several][:SHEET_PAGES]
    pairs = []
    for i in chosen:
        plan = to_pixels(plans[i], scale=256 / plans[i].width_px)
        large = Image.fromarray(prints[i]).resize(plan.shape[1::-1], Image.Resampling.LANCZOS)
        pairs.append(np.concatenate([plan, np.asarray(large)], axis=0))
    return report.sheet(pairs, [cases[i].prompt for i in chosen])


def _chosen(
    args: argparse.Namespace, *, page_px: tuple[int, int] | None = None
) -> tuple[Benchmark, list[Case]]:
    """The benchmark of the flags and its first cases; its own pages as large as told."""
    benchmark = open_benchmark(args.benchmark)
    if benchmark.redrawn:
        benchmark = benchmark.redrawn(num_pages=args.n or 0, page_px=page_px or args.page_px)
        return benchmark, benchmark.cases(args.data)
    if args.page_px:
        raise ValueError(f"{args.benchmark} does not draw pages of its own: leave --page-px out")
    if args.data is None:
        raise ValueError(f"{args.benchmark} needs --data, a path with its files: {benchmark.where}")
    return benchmark, benchmark.cases(args.data)[: args.n]


def _flags() -> argparse.Namespace:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whose = flags.add_mutually_exclusive_group(required=True)
    whose.add_argument("--bundle", type=Path, help="a run folder of three models")
    whose.add_argument("--watch", type=Path, help="a run folder to follow")
    whose.add_argument("--images", type=Path, help="a folder of pictures, or `controls`")
    whose.add_argument("--prompts", type=Path, help="write the prompts there and stop")
    flags.add_argument("--benchmark", choices=BENCHMARKS, default="pages", metavar="NAME")
    flags.add_argument("--data", type=Path, help="where the benchmark's own files are")
    flags.add_argument("--n", type=int, help="its first cases only")
    flags.add_argument("--out", type=Path, default=Path("evaluation"))
    flags.add_argument("--json", type=Path, help="a copy of scores.json")
    flags.add_argument("--reader", default="rapidocr", help="see evals/readers/opening.py")
    flags.add_argument("--cache", type=Path, help="what was read is kept there; else in --out")
    flags.add_argument("--num-readers", type=int, default=0, help="processes that read")
    flags.add_argument("--num-typeset", type=int, help="cases to typeset for the ceiling")
    flags.add_argument("--font", type=Path, help="of typeset controls, for scripts ours lacks")
    flags.add_argument("--images-per-prompt", type=int)
    flags.add_argument(
        "--page-px", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"),
        help="of our own benchmark's pages, for --images; a bundle's are as large as its models'",
    )  # fmt: skip
    flags.add_argument("--missing-ok", action="store_true", help="lost pictures count as empty")
    flags.add_argument("--seed", type=int, default=0)
    add_flags(flags)
    return flags.parse_args()


def _write(folder: Path, scored: Scored, copy: Path | None) -> None:
    page, said = report.write(folder, scored.results, scored.gallery, scored.sums), ""
    if scored.sheet is not None:
        Image.fromarray(scored.sheet).save(folder / "sheet.png")
        said = f" (a sheet of prompts, plans and prints: {folder / 'sheet.png'})"
    if copy:
        copy.write_text((folder / "scores.json").read_text())
    print(report.table(scored.results))
    print(f"open {page}{said}")


def _evaluate_run(proofreader: Proofreader, run: Path, bundle: Bundle, folder: Path) -> Results:
    """Score a bundle into a folder, and leave beside its models what they need to know of it."""
    scored = proofreader.bundle(bundle, run.name)
    _write(folder, scored, proofreader.args.json)
    if scored.least_type and is_own(proofreader.args):
        print(keep(run, scored.least_type))
    return scored.results


def _runs(proofreader: Proofreader) -> None:
    """Evaluate a bundle once, or a run as long as it is watched."""
    from pipeline import Bundle

    args = proofreader.args
    if args.bundle:
        bundle = Bundle(args.bundle, **settings(args))
        _evaluate_run(proofreader, args.bundle, bundle, args.out)
        return
    if is_sealed(args.watch):
        raise ValueError(f"{args.watch} is an exported bundle and never changes: give --bundle")
    evaluate = functools.partial(_evaluate_run, proofreader, args.watch)
    open_run = functools.partial(Bundle, **settings(args))
    watch(args.watch, args.out, every(WATCH_S), open_run=open_run, evaluate=evaluate)


def main() -> None:
    """Parse the flags, read the pictures, score them, report."""
    args = _flags()
    cluster = start()  # alone, unless a launcher or scheduler says otherwise
    if cluster.num_processes > 1 and not args.bundle:
        raise ValueError("only --bundle is shared by several processes: start this one alone")
    proofreader = Proofreader(args, cluster)
    if args.bundle or args.watch:
        _runs(proofreader)
    else:
        benchmark, cases = _chosen(args)
        if args.prompts:
            count = args.images_per_prompt or benchmark.images_per_prompt
            write_prompts(cases, args.prompts, images_per_prompt=count)
            print(f"{len(cases)} prompts, {count} pictures each: {args.prompts}")
        elif str(args.images) == "controls":
            _write(args.out, proofreader.controls_alone(benchmark, cases), args.json)
        else:
            _write(args.out, proofreader.pictures(benchmark, cases), args.json)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
