"""Exact words against forward passes, and the time that they take.

    python scripts/passes.py --bundle runs/demo --decoder runs/random --decoder runs/causal --out D

Prints held-out pages given their blueprints: by the bundle's decoder, and by others that learnt the
same tokenizer's codes. A random one prints by all `--orders`, each in as many `--passes`; a masked
one, each of whose passes is over a whole page, surest first and by the `--orders` that put what is
certain first, in up to `--most-whole` passes; a causal one checks `--windows` positions in a pass,
1 of which is one at a time, the base of all speeds.

Passes are those that a page needed, on average; words have a bootstrap interval over pages; times
are medians over `--turns`, in each of which every way prints the same pages, of codes alone,
without conditions and pixels. Writes `passes.json`, `passes.md` and `passes.png` into --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline
from evals.benchmarks import open_benchmark
from evals.metrics.pixels import psnr_db
from evals.passes import Row, chart, keeps_words, table, to_png
from evals.pictures import as_reading
from evals.readers import open_reader, read_all
from evals.scoring import Case, Score, scores_of, sums_of
from pipeline.printing import conditions
from sampling.in_order import CERTAIN_FIRST, ORDERS
from sampling.policy import Policy
from sampling.printing import Press, print_counted
from train.compiled import keep_compiled
from train.data.codes import require_same
from train.model import Model

BATCHES = (1, 16)  # pages are scored as many at once as the last
WORDS, ELEMENTS = "exact_word_accuracy", "exact_element_accuracy"
SUREST, SINGLY = "surest first", "raster, one at a time"


@dataclasses.dataclass(frozen=True)
class Way:
    """A decoder and a press."""

    model: str
    name: str
    asked: int
    press: Press


class Printer:
    """A decoder, what it is told of all pages, and its compiled print."""

    def __init__(self, decoder: Model, bundle: pipeline.Bundle, cases: Sequence[Case]) -> None:
        require_same(decoder.manifest["identity"]["contract"], bundle.contract, where="--decoder")
        self.kind = decoder.config.model.objective
        self.press = pipeline.decoder_press(decoder.config)
        shown = pipeline.decoder_task(decoder.config).model.conditioning
        pages = [case.blueprint for case in cases if case.blueprint is not None]
        self.told = conditions(bundle.tokenizer, shown, pages)
        grid, Q = bundle.contract["grid"], bundle.contract["num_codes"]
        self.shape = (*grid, Q)
        self._print = decoder.probes.compiled(print_counted, static_argnames="press")

    def __call__(self, press: Press, first: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes of pages from `first` on, and the passes of each; the last pages again where there
        are too few."""
        num_pages = len(self.told["letters"])
        rows = np.minimum(np.arange(first, first + batch), num_pages - 1)
        given = {name: jnp.asarray(array[rows]) for name, array in self.told.items()}
        codes = jnp.zeros((batch, *self.shape), jnp.int32)
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(rows)
        made, passes = self._print(codes, jnp.ones(codes.shape[:3], bool), given, keys, press=press)
        return np.asarray(made), np.asarray(passes)

    def all(self, press: Press) -> tuple[np.ndarray, np.ndarray]:
        """Of all pages."""
        num_pages, batch = len(self.told["letters"]), BATCHES[-1]
        found = [self(press, first, batch) for first in range(0, num_pages, batch)]
        codes, passes = (np.concatenate(part)[:num_pages] for part in zip(*found, strict=True))
        return codes, passes


def ways(name: str, printer: Printer, args: argparse.Namespace) -> list[Way]:
    """All that there is to measure of a decoder."""
    policy = printer.press.policy
    if args.temperature:
        policy = Policy(args.temperature)
    press = dataclasses.replace(printer.press, policy=policy)
    change = lambda **how: dataclasses.replace(press, **how)  # noqa: E731
    if printer.kind == "causal":
        called = lambda w: SINGLY if w == 1 else "raster, in windows"  # noqa: E731
        return [Way(name, called(w), w, change(window=w)) for w in args.windows]
    orders = {order: order for order in args.orders}
    if printer.kind == "masked":
        orders = {SUREST: "random", **{o: o for o in args.orders if o in CERTAIN_FIRST}}
    return [
        Way(name, said, n, change(order=order, num_passes=n))
        for said, order in orders.items()
        for n in args.passes
        if printer.kind != "masked" or n <= args.most_whole
    ]


def scored(
    way: Way, printer: Printer, bundle: pipeline.Bundle, seen: Seen
) -> tuple[Row, np.ndarray]:
    """A row without times, and its codes."""
    codes, passes = printer.all(way.press)
    chunks = range(0, len(codes), BATCHES[-1])
    pages = np.concatenate([bundle.pixels(codes[i : i + BATCHES[-1]]) for i in chunks])
    scores = seen.scores(pages)
    right = float((codes == seen.codes).mean())
    decibels = psnr_db(seen.pages, pages)
    row = Row(way.model, way.name, way.asked, float(passes.mean()), scores[WORDS],
              scores[ELEMENTS].value, decibels, right)  # fmt: skip
    return row, codes


class Seen:
    """The real pages with their codes, and a reader of prints of them."""

    def __init__(self, bundle: pipeline.Bundle, args: argparse.Namespace) -> None:
        benchmark = open_benchmark("pages")
        assert benchmark.redrawn is not None
        benchmark = benchmark.redrawn(num_pages=args.n, page_px=bundle.page_px)
        self.cases = benchmark.cases(None)
        self.metrics = [m for m in benchmark.metrics if m.name in (WORDS, ELEMENTS)]
        self.pages = np.stack([case.pixels for case in self.cases])  # type: ignore[attr-defined]  # PageCases
        self.codes = np.asarray(bundle.tokenizer.probes["encode"](self.pages))
        self._reader, self._cache = open_reader(args.reader), args.cache or args.out / "reads"

    def scores(self, pages: np.ndarray) -> Mapping[str, Score]:
        """Of prints of all pages."""
        found = read_all(self._reader, list(pages), cache=self._cache, progress=False)
        size = pages.shape[2], pages.shape[1]
        readings = [
            [as_reading(read, page, size_px=size)] for read, page in zip(found, pages, strict=True)
        ]
        return scores_of(self.metrics, sums_of(self.metrics, self.cases, readings))


def timed(todo: Sequence[tuple[Way, Printer]], turns: int) -> list[dict[int, list[float]]]:
    """Milliseconds a page of each way, by batch and turn: in a turn all print the same pages."""
    took: list[dict[int, list[float]]] = [{b: [] for b in BATCHES} for _ in todo]
    for batch in BATCHES:
        for way, printer in todo:
            printer(way.press, 0, batch)  # compiled
        for turn in range(turns):
            for spent, (way, printer) in zip(took, todo, strict=True):
                first = turn * batch % len(printer.told["letters"])
                begin = time.perf_counter()
                printer(way.press, first, batch)
                spent[batch].append(1000 * (time.perf_counter() - begin) / batch)
    return took


def base_of(rows: Sequence[Row]) -> Row:
    """One at a time in raster order, or else the first decoder's most passes."""
    singly = [row for row in rows if row.way == SINGLY]
    first = [row for row in rows if row.model == rows[0].model]
    return singly[0] if singly else max(first, key=lambda row: row.passes)


def verdict(rows: Sequence[Row], base: Row, num_codes: int) -> str:
    """Which ways have the base's words with an eighth of the passes, and where in a fifth of the
    time."""
    said = [f"base: {base.series}, {base.passes:.0f} passes, words {base.words.value:.3f}"]
    for row in rows:
        if row.passes * 8 > num_codes or not keeps_words(row, base):
            continue
        faster = {b: base.ms[b] / ms for b, ms in row.ms.items() if b in base.ms}
        held = [str(b) for b, times in faster.items() if times >= 5]
        where = f"5x as fast at batch {', '.join(held)}" if held else "nowhere 5x as fast"
        times = ", ".join(f"{t:.1f} at {b}" for b, t in faster.items()) or "not timed"
        said.append(f"{row.series} ({row.asked}): {row.passes:.1f} passes, {where} ({times})")
    return "\n".join(said)


def _flags() -> argparse.Namespace:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--bundle", type=Path, required=True)
    flags.add_argument("--decoder", type=Path, action="append", default=[], help="another run")
    flags.add_argument("--n", type=int, default=96, help="pages")
    flags.add_argument("--passes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 256])
    flags.add_argument("--most-whole", type=int, default=16, help="passes of a masked decoder")
    flags.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    flags.add_argument("--windows", type=int, nargs="+", default=[1, 8, 16, 32, 64])
    flags.add_argument("--temperature", type=float, default=0.0, help="0: as the config has it")
    flags.add_argument("--turns", type=int, default=6, help="0: no times")
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--json", type=Path, help="a copy of passes.json")
    flags.add_argument("--reader", default="rapidocr", help="see evals/readers/opening.py")
    flags.add_argument("--cache", type=Path, help="what was read is kept there; else in --out")
    return flags.parse_args()


def measured(args: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """All rows, with what else there is to say."""
    bundle = pipeline.load(args.bundle)
    seen = Seen(bundle, args)
    decoders = {bundle.decoder.config.model.objective: bundle.decoder}
    for run in args.decoder:
        model = pipeline.load_model(run)
        name = model.config.model.objective
        decoders[f"{name} ({run.name})" if name in decoders else name] = model
    printers = {name: Printer(model, bundle, seen.cases) for name, model in decoders.items()}
    todo = [(w, p) for name, p in printers.items() for w in ways(name, p, args)]
    rows, made, same = [], {}, {}
    for way, printer in todo:
        row, codes = scored(way, printer, bundle, seen)
        rows.append(row)
        if way.name == SINGLY:
            made[way.model] = codes
        if printer.kind == "causal" and way.model in made:
            same[str(way.asked)] = float((codes == made[way.model]).all(axis=(1, 2, 3)).mean())
        print(f"{row.series} ({row.asked}): {row.passes:.1f} passes, words {row.words.value:.3f} "
              f"({row.words.low:.3f} to {row.words.high:.3f})", flush=True)  # fmt: skip
    blueprints = [case.blueprint for case in seen.cases if case.blueprint is not None]
    beyond = {"tokenizer alone": bundle.pixels(seen.codes),
              "canonical page copied": bundle.copied(blueprints)}  # fmt: skip
    marks = {name: seen.scores(pages)[WORDS].value for name, pages in beyond.items()}
    if args.turns:
        spent = timed(todo, args.turns)
        middle = [{b: statistics.median(t) for b, t in own.items()} for own in spent]
        rows = [dataclasses.replace(r, ms=ms) for r, ms in zip(rows, middle, strict=True)]
    beside = {"num_pages": args.n, "marks": marks, "num_codes": int(np.prod(seen.codes.shape[1:3])),
              "share_of_pages_as_one_at_a_time": same, "temperature": args.temperature,
              "device": jax.devices()[0].device_kind}  # fmt: skip
    return rows, beside


def main() -> None:
    """Measure, write, print."""
    args = _flags()
    args.out.mkdir(parents=True, exist_ok=True)
    keep_compiled(args.out)
    rows, beside = measured(args)
    base = base_of(rows)
    found = {**beside, "base": base.series, "rows": [dataclasses.asdict(row) for row in rows]}
    (args.out / "passes.json").write_text(json.dumps(found, indent=1) + "\n")
    if args.json:
        args.json.write_text((args.out / "passes.json").read_text())
    (args.out / "passes.md").write_text(table(rows, base) + "\n")
    (args.out / "passes.png").write_bytes(to_png(chart(rows, beside["marks"])))
    print(table(rows, base))
    print(verdict(rows, base, beside["num_codes"]))
    if same := beside["share_of_pages_as_one_at_a_time"]:
        print("pages whose every code is that of one at a time, by window:", same)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
