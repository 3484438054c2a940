"""What the loop costs beside its step: `python scripts/overhead.py [--config C]
[--config.a.b=c]`.

A decoder run with all of the loop on (supervision, watchdog, log, meter, guard, FLOPs, saves in the
background every `--save-every` steps) against two bare loops of the same jitted step: one over a
few batches that lie on the device and are cycled, and one that loads and places them too. All three
have the same batches: the run reads records that were made before, unless `--make` has it make
them, as a training does. They take turns in segments of `--steps` steps within one process, whose
order alternates, and each segment of the run is compared with those beside it; the medians of these
ratios are printed, since a machine is rarely quiet. A tokenizer that has seen one step and its
codes are made first, in a temporary folder, or below `--keep`.

Seconds are the wall's; `main thread` is the processor's time of the Python thread alone, so what it
waits for does not count; `process` is that of all threads, XLA's and the data's included.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

import pipeline
from train import config as configs
from train import loop
from train.accounting import Loads
from train.checkpoint import Checkpoints
from train.data.batching import Batches, batches, iterate
from train.data.encoding import encode
from train.distributed import ClusterConfig
from train.feeding import place_batch
from train.log import Evaluation, Log
from train.plan import LoopConfig, Plan, plan
from train.supervision import supervised
from train.supervision.meter import Meter
from train.supervision.pace import Pace
from train.supervision.watchdog import Watchdog

CLOCKS = {"wall": time.monotonic, "main thread": time.thread_time, "process": time.process_time}
KINDS = ("run", "bare", "bare with data")
NUM_KEPT = 8  # batches
Times = dict[str, float]  # by clock, in seconds


def now() -> Times:
    """Where the clocks stand."""
    return {name: clock() for name, clock in CLOCKS.items()}


def since(then: Times, num_steps: int) -> Times:
    """Seconds a step."""
    return {name: (clock() - then[name]) / num_steps for name, clock in CLOCKS.items()}


def kept(dataset: Batches) -> Batches:
    """The same first records again and again, without the work of making them."""
    records = [dataset.streams[0][i] for i in range(NUM_KEPT * dataset.batch_size)]
    return batches([records], dict, batch_size=dataset.batch_size, seed=0, shuffle=False)


def codes_of(config: Any, tokenizer: Path, folder: Path) -> None:
    """Train the tokenizer of another config for one step, and encode the decoder's pages: what is
    there is kept."""
    if (folder / "codes" / "cache.json").exists():
        return
    changes = [f"--config.data.num_pages={config.data.num_pages}", "--config.loop.num_steps=1"]
    own: Any = configs.load(tokenizer, [*changes, "--config.data.num_evaluation_pages=2"])
    with own.unlocked():
        own.data.page = config.data.page
    run, workdir = pipeline.run(own), folder / "tokenizer"
    with supervised(ClusterConfig(kind="single")):
        loop.train(run.task, run.dataset, run.loop, workdir)
    (workdir / "config.json").write_text(json.dumps(own.to_dict()))
    encode(pipeline.encoding(pipeline.load_model(workdir), own.data, folder / "codes"))


class Rivals:
    """The bare loops, which run while the run evaluates: as an evaluator they are called between
    its segments, where nothing else of it is under way but a save."""

    def __init__(
        self, planned: Plan, dataset: Batches, config: LoopConfig, *, num_steps: int
    ) -> None:
        self.planned, self.dataset, self.config = planned, dataset, config
        self.num_steps, self.mesh = num_steps, config.build_mesh()
        self.state = self.planned.materialise()
        self.placed = [self.place(dataset[i]) for i in range(NUM_KEPT)]
        self.batches = self.made()
        self.order = itertools.cycle([KINDS[1:], KINDS[:0:-1]])
        self.segments: list[dict[str, Times]] = []
        self.began: Times | None = None

    def place(self, batch: Any) -> Any:
        return place_batch(batch, self.mesh, self.config.rules)

    def made(self) -> Iterator[Any]:
        last = self.config.num_steps + self.num_steps
        return map(self.place, iterate(self.dataset, 0, last))

    def bare(self, kind: str) -> Times:
        """Seconds a step, waiting for the last one."""
        batches = self.batches if kind == KINDS[2] else itertools.cycle(self.placed)
        began = now()
        for batch in itertools.islice(batches, self.num_steps):
            self.state, _ = self.planned.step(self.state, batch)
        jax.block_until_ready(self.state)
        return since(began, self.num_steps)

    def __call__(self, step: int, probes: Any) -> Evaluation:
        """A segment of the run has ended: run the bare ones, and let the next begin."""
        found = {KINDS[0]: since(self.began, self.num_steps)} if self.began else {}
        found |= {kind: self.bare(kind) for kind in next(self.order)}
        self.segments.append(found)
        self.began = now()
        return Evaluation({})


def ratios(segments: list[dict[str, Times]], kind: str, clock: str) -> list[float]:
    """Of each segment of the run to those of a bare loop just before and just after it."""
    return [
        2 * here["run"][clock] / (before[kind][clock] + here[kind][clock])
        for before, here in itertools.pairwise(segments)
    ]


class Parts:
    """The main thread's time in parts of the loop, over a run of its own: the clocks cost too."""

    PARTS: tuple[tuple[Any, str], ...] = (
        (loop, "place_batch"), (Loads, "known"), (Log, "later"), (Log, "scalars"), (Pace, "next"),
        (Meter, "done"), (Watchdog, "beat"), (Checkpoints, "due"), (Checkpoints, "check"),
        (Checkpoints, "save"),
    )  # fmt: skip

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, name: str, began: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + time.thread_time() - began

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.add(name, began)

        return run

    def timed_around(self, name: str, enter: Callable[..., Any]) -> Callable[..., Any]:
        """Of a context, what its beginning and its end take, without what runs inside."""

        @contextlib.contextmanager
        def run(*args: Any, **kwargs: Any) -> Iterator[None]:
            began = time.thread_time()
            with enter(*args, **kwargs):
                self.add(name, began)
                yield
                began = time.thread_time()
            self.add(name, began)

        return run

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Measure what runs inside."""
        with contextlib.ExitStack() as stack:
            around = [(Watchdog, "phase"), (Meter, "span")]
            for owner, name in [*self.PARTS, *around]:
                wrap = self.timed_around if (owner, name) in around else self.timed
                short = f"{owner.__name__.split('.')[-1]}.{name}"
                stack.enter_context(put(owner, name, wrap(short, getattr(owner, name))))
            yield


@contextlib.contextmanager
def put(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another value of an attribute inside the block."""
    old = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, old)


def measured(
    run: pipeline.Run, config: LoopConfig, workdir: Path, planned: Plan
) -> tuple[list[dict[str, Times]], float]:
    """The segments of one run, and the seconds that saves blocked it."""
    saves: list[Checkpoints] = []

    class Kept(Checkpoints):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            saves.append(self)

    rivals = Rivals(planned, run.dataset, config, num_steps=config.eval_every_steps)
    with (
        put(loop, "Checkpoints", Kept),
        put(loop, "plan", lambda *_: planned),
        supervised(ClusterConfig(kind="single"), config.deadlines),
    ):
        loop.train(run.task, run.dataset, config, workdir, evaluate=rivals)
    return rivals.segments[1:], saves[0].blocked_s  # the first compiled


def summed_up(segments: list[dict[str, Times]], clock: str) -> dict[str, float]:
    """Medians by one clock: microseconds a step of each, and the run's ratio to the bare ones."""
    found = {
        f"{kind}_us": 1e6 * statistics.median(segment[kind][clock] for segment in segments)
        for kind in KINDS
    }
    rivals = KINDS[1:]
    return found | {f"to {k}": statistics.median(ratios(segments, k, clock)) for k in rivals}


def main() -> None:
    """Measure and print."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--config", type=Path, default=Path("configs/tiny/decoder.py"))
    flags.add_argument("--tokenizer", type=Path, help="config; the one beside --config without it")
    flags.add_argument("--segments", type=int, default=40)
    flags.add_argument("--steps", type=int, default=25, help="of one segment")
    flags.add_argument("--save-every", type=int, default=400)
    flags.add_argument("--make", action="store_true", help="the records of each batch anew")
    flags.add_argument("--num-pages", type=int, default=64)
    flags.add_argument("--keep", type=Path, help="where the codes may stay for another time")
    flags.add_argument("--json", type=Path)
    args, overrides = flags.parse_known_args()
    if args.save_every > (num_steps := (args.segments + 2) * args.steps):
        flags.error(f"--save-every {args.save_every} is never reached in {num_steps} steps")
    config: Any = configs.load(args.config, overrides, sections={"loop": LoopConfig})
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = args.keep or scratch
        with config.unlocked():
            config.data.num_pages = args.num_pages
            config.data.codes, config.data.tokenizer = (str(folder / "codes"),), ""
        codes_of(config, args.tokenizer or args.config.parent / "tokenizer.py", folder)
        run = pipeline.run(config)
        if not args.make:
            run = dataclasses.replace(run, dataset=kept(run.dataset))
        saving = dataclasses.replace(run.loop.checkpoint, every_steps=args.save_every)
        changed = dataclasses.replace(
            run.loop, num_steps=num_steps, eval_every_steps=args.steps,
            log_every_steps=LoopConfig.log_every_steps, checkpoint=saving,
        )  # fmt: skip
        mesh = changed.build_mesh()
        with jax.set_mesh(mesh), loop.use_rules(changed.rules), loop.use_kernel(changed.attention):
            planned = plan(run.task, changed, mesh)
        segments, blocked_s = measured(run, changed, scratch / "run", planned)
        found = tell(args, segments, blocked_s / (changed.num_steps // args.save_every))
        parts, fewer = Parts(), dataclasses.replace(changed, num_steps=3 * args.steps)
        with parts():
            measured(run, fewer, scratch / "parts", planned)
    found["parts_us"] = {n: 1e6 * s / fewer.num_steps for n, s in sorted(parts.seconds.items())}
    print("main thread, us a step:", *(f"{n} {us:.1f}" for n, us in found["parts_us"].items()))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


def tell(args: Any, segments: list[dict[str, Times]], save_s: float) -> dict[str, Any]:
    """Print the table, and return it."""
    table = {clock: summed_up(segments, clock) for clock in CLOCKS}
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"{args.config}: {len(segments)} segments of {args.steps} steps, load {load}")
    for clock, row in table.items():
        print(f"{clock:12}", *(f"{name} {value:.4g}" for name, value in row.items()), sep="  ")
    share = save_s / (args.save_every * table["wall"]["run_us"] / 1e6)
    print(f"a save blocks {save_s:.3f} s, {share:.2%} of an interval of {args.save_every} steps")
    sys.stdout.flush()
    return {"clocks": table, "save_s": save_s, "save_share": share}


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
