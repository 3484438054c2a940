"""Prove that a run that is killed ends in the bits of one that is not:

    python scripts/prove_resume.py --config configs/tiny/planner.py --processes 2 --kills 10 \\
        --config.loop.num_steps=100 --config.loop.checkpoint.every_steps=10

One run goes undisturbed. Another is struck `--kills` times and started again each time: SIGKILL of
a random process, SIGTERM to one, each while it starts, compiles, steps, evaluates or saves, at a
random moment of the time that such a phase took undisturbed. Their last states (parameters, other
variables, optimizer, averages, guard, step, data position) and every recorded number have to be
the same in every bit. Then each `--other` layout, such as 1x4 (processes x devices) or
2x2:data=2,fsdp=2, goes on from the undisturbed run's middle: the same data, and losses that are
`--tolerance` apart at most, relatively, in the first ten steps. As many devices give the same bits
in any number of processes; on another mesh sums in another order differ in their last bit, and
training makes differences grow: how far they come is told, not judged. Exit code 1 if anything is
not as it should be.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.launch import command
from scripts.proof import evidence
from scripts.proof.sight import PHASES, durations, has_evaluation, records, saved
from scripts.proof.starts import Blow, Layout, Outcome, Trainer
from train.exits import STOPPED

KILL, TERM = signal.SIGKILL, signal.SIGTERM
# what is struck when, so that few blows hit the most delicate places
_BLOWS = (
    (KILL, "save"), (TERM, "step"), (KILL, "evaluation"), (KILL, "step"), (TERM, "compile"),
    (KILL, "start"), (TERM, "evaluation"), (KILL, "compile"), (TERM, "start"), (TERM, "save"),
)  # fmt: skip
_BEFORE_A_STEP = ("start", "compile")
_NOT_LISTENING = 128 + TERM
_JUDGED_STEPS = 10


class Failed(Exception):
    """The proof cannot be finished; the message says what happened."""


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """Of the undisturbed run: how many steps, how often saved, which were evaluated, and how long
    its phases took in seconds (`lasted_s`, which every later start corrects)."""

    num_steps: int
    every_steps: int
    evaluations: frozenset[int]
    lasted_s: dict[str, float]


def say(line: str) -> None:
    print(line, flush=True)


def undisturbed(trainer: Trainer, workdir: Path, layout: Layout) -> Rhythm:
    """Run it once, and learn how it goes."""
    outcome = trainer.start(workdir, layout)
    if set(outcome.codes.values()) != {0}:
        raise Failed(f"the undisturbed run ended with {outcome.codes}; see {workdir}/output.txt")
    loop = json.loads((workdir / "config.json").read_text())["loop"]
    evaluations = frozenset(s for s, r in records(workdir).items() if has_evaluation(r))
    lasted_s = durations(outcome.glances, evaluations)
    shown = ", ".join(f"{p} {lasted_s[p]:.2f}" for p in PHASES if p in lasted_s)
    say(f"undisturbed: {loop['num_steps']} steps in {outcome.lasted_s:.1f} s; seconds of {shown}")
    every_steps = loop["checkpoint"]["every_steps"] or loop["num_steps"]
    return Rhythm(loop["num_steps"], every_steps, evaluations, lasted_s)


def draw(kills: int, rhythm: Rhythm, processes: int, chance: random.Random) -> list[Blow]:
    """The blows, in random order. Their `step` counts from where the start goes on, and their
    `wait_s` is a share of what the phase lasts."""
    known = [(s, p) for s, p in _BLOWS if p != "evaluation" or len(rhythm.evaluations) > 1]
    known = [known[i % len(known)] for i in range(kills)]
    chance.shuffle(known)
    blows = []
    for signum, phase in known:
        step = 0 if phase in _BEFORE_A_STEP else 1
        if phase == "step":
            step = chance.randint(1, max(1, rhythm.every_steps * 3 // 2))
        blows.append(Blow(signum, chance.randrange(processes), phase, step, chance.random()))
    return blows


def expected(blow: Blow, outcome: Outcome) -> bool:
    """Whether all processes ended as the blow should have made them: together and saved after a
    SIGTERM, and by nothing but the blow itself."""
    code = outcome.codes[str(blow.process)]
    if outcome.hung or outcome.hit is None:
        return False
    if blow.signum == KILL:
        return code == 128 + KILL
    if outcome.hit[0] in _BEFORE_A_STEP:
        return code in (STOPPED, _NOT_LISTENING)
    return set(outcome.codes.values()) == {STOPPED}


def killed(
    trainer: Trainer, workdir: Path, layout: Layout, blows: Sequence[Blow], rhythm: Rhythm
) -> list[dict[str, Any]]:
    """Strike one start after the other, then let the last one end; a row for each."""
    events, lasted_s = [], dict(rhythm.lasted_s)
    for number, blow in enumerate(blows, start=1):
        first = max(saved(workdir), default=0)
        # none may come so late that nothing is left for those after it
        share = max(1, (rhythm.num_steps - 1 - first) // (len(blows) - number + 1))
        aimed = dataclasses.replace(
            blow, step=first + min(blow.step, share),
            wait_s=blow.wait_s * lasted_s.get(blow.phase, 0.0),
        )  # fmt: skip
        outcome = trainer.start(workdir, layout, aimed)
        lasted_s |= durations(outcome.glances, rhythm.evaluations, first=first)
        row = event(number, aimed, outcome, workdir)
        events.append(row)
        say(
            "  {kill:3}  {signal} to {process} in {hit:10} after step {at_step:4} at {at_s:6.1f} s,"
            " went on from {went_on_from:4}, left {saved:4}, exit codes {codes}{remark}".format(
                **row, codes=" ".join(map(str, row["exit_codes"])),
                remark="" if row["as_expected"] else "  <- NOT AS EXPECTED",
            )
        )  # fmt: skip
        if outcome.hung:
            raise Failed(f"start {number} hung for {trainer.timeout_s:g} s; see {workdir}")
        if outcome.hit is None:
            raise Failed(
                f"start {number} ended before it was struck; see {workdir}/output.txt, or give "
                "more steps"
            )
    outcome = trainer.start(workdir, layout)
    say(f"  then from {outcome.went_on_from} to the end, exit codes {_codes(outcome)}")
    if set(outcome.codes.values()) != {0}:
        raise Failed(f"the last start ended with {outcome.codes}; see {workdir}/output.txt")
    return events


def _codes(outcome: Outcome) -> list[int]:
    return [outcome.codes[name] for name in sorted(outcome.codes, key=int)]


def event(number: int, blow: Blow, outcome: Outcome, workdir: Path) -> dict[str, Any]:
    """What is told of a blow."""
    hit, step = outcome.hit or ("nothing", outcome.went_on_from)
    return {
        "kill": number, "signal": blow.signum.name, "process": blow.process, "aimed": blow.phase,
        "hit": hit, "at_step": step, "at_s": round(outcome.hit_s, 3),
        "went_on_from": outcome.went_on_from, "saved": max(saved(workdir), default=0),
        "exit_codes": _codes(outcome), "lasted_s": round(outcome.lasted_s, 3),
        "hung": outcome.hung, "as_expected": expected(blow, outcome),
    }  # fmt: skip


def elsewhere(trainer: Trainer, calm: Path, workdir: Path, layout: Layout) -> dict[str, Any]:
    """Go on from the calm run's middle on other processes and devices; how far losses are apart."""
    steps = saved(calm)
    middle = steps[(len(steps) - 1) // 2]
    (workdir / "checkpoints").mkdir(parents=True)
    shutil.copytree(calm / "checkpoints" / str(middle), workdir / "checkpoints" / str(middle))
    shutil.copy(calm / "config.json", workdir)
    outcome = trainer.start(workdir, layout)
    if set(outcome.codes.values()) != {0}:
        raise Failed(f"on {layout} it ended with {outcome.codes}; see {workdir}/output.txt")
    return {"layout": str(layout), **apart(calm, workdir, middle)}


def apart(calm: Path, workdir: Path, first: int) -> dict[str, Any]:
    """How far the losses of both are apart after step `first`, and whether the data is the same."""
    rows = evidence.losses(calm, workdir, after=first)
    return {
        "from_step": first, "rows": rows,
        "same_data": evidence.same_data(calm, workdir, after=first),
        "early": most(rows[:_JUDGED_STEPS]), "most": most(rows),
    }  # fmt: skip


def most(rows: Sequence[dict[str, Any]]) -> float:
    """How far the losses are apart at most; infinitely, where one is missing."""
    return max((row.get("relative", float("inf")) for row in rows), default=float("inf"))


def within(other: dict[str, Any], tolerance: float) -> bool:
    """Whether another layout sees the same data and begins with losses that are near enough."""
    return other["same_data"] and other["early"] <= tolerance


def layout_of(text: str) -> Layout:
    """An argparse type: `2x2`, or `2x2:data=2,fsdp=2` with the mesh."""
    shape, _, mesh = text.partition(":")
    processes, _, devices = shape.partition("x")
    try:
        sizes = {n: int(size) for n, size in (pair.split("=") for pair in mesh.split(",") if mesh)}
        overrides = (f"--config.loop.mesh={sizes}",) if sizes else ()
        return Layout(int(processes), int(devices), overrides)
    except ValueError:
        message = f"{text!r} is not processes x devices, as 1x4 or 2x2:data=2,fsdp=2"
        raise argparse.ArgumentTypeError(message) from None


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of both comparisons."""
    for row in rows:
        verdict = "same" if row["equal"] else "DIFFERS"
        if "step" in row:
            note = f"  differing: {', '.join(row['differing'])}" if row["differing"] else ""
            pair = f"{row['undisturbed']!s:>20} {row['killed']!s:>20}"
            say(f"  loss {row['step']:9} {pair}  {verdict}{note}")
        else:
            pair = f"{row['undisturbed'][:20]:>20} {row['killed'][:20]:>20}"
            say(f"  {row['what']:14} {pair}  {verdict}")


def prove(args: argparse.Namespace, trainer: Trainer) -> dict[str, Any]:
    """All of it; what the JSON file holds."""
    out, chance = args.out, random.Random(args.seed)
    calm, struck = out / "undisturbed", out / "killed"
    layout = Layout(args.processes, args.devices_per_process)
    rhythm = undisturbed(trainer, calm, layout)
    trainer = dataclasses.replace(trainer, evaluations=rhythm.evaluations)
    say(f"killed {args.kills} times (seed {args.seed}):")
    blows = draw(args.kills, rhythm, args.processes, chance)
    events = killed(trainer, struck, layout, blows, rhythm)
    others = []
    for number, other in enumerate(args.other):
        others.append(found := elsewhere(trainer, calm, out / f"other_{number}", other))
        found["within_tolerance"] = within(found, args.tolerance)
    ends = evidence.ending(calm), evidence.ending(struck)
    rows = evidence.losses(calm, struck) + evidence.compare(*ends)
    say(f"\n  {'':14} {'undisturbed':>20} {'killed':>20}")
    table(rows)
    for found in others:
        say(
            "on {layout} from step {from_step}: same data {same_data}, losses apart by {early:.1e} "
            "at most in ten steps and {most:.1e} in {steps}: within tolerance "
            "{within_tolerance}".format(**found, steps=len(found["rows"]))
        )
    return {
        "kills": len(events), "identical": all(row["equal"] for row in rows), "rows": rows,
        "as_expected": all(row["as_expected"] for row in events), "events": events,
        "others": others, "tolerance": args.tolerance, "layout": str(layout), "seed": args.seed,
        "config": str(args.config), "overrides": list(trainer.overrides), "phases_s":
        rhythm.lasted_s,
    }  # fmt: skip


def main() -> int:
    """Parse the flags and prove it; the exit code."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    flags.add_argument("--config", type=Path, required=True)
    flags.add_argument("--processes", type=int, default=2)
    flags.add_argument("--devices-per-process", type=int, default=1)
    flags.add_argument("--kills", type=int, default=10)
    flags.add_argument("--other", type=layout_of, action="append", default=[], metavar="PxD[:MESH]")
    flags.add_argument("--tolerance", type=float, default=1e-5)
    flags.add_argument(
        "--env", type=command.VARIABLE, action="append", default=[],
        help="for the processes: JAX_PLATFORMS=cuda where there is a GPU for each of them",
    )  # fmt: skip
    flags.add_argument("--timeout-s", type=float, default=1800.0, help="of one start")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--out", type=Path, help="an empty folder (by default a temporary one)")
    flags.add_argument("--json", type=Path, help="what was found goes there")
    args, overrides = flags.parse_known_args()
    args.out = (args.out or Path(tempfile.mkdtemp(prefix="prove_resume_"))).absolute()
    if (args.out / "undisturbed").exists():
        flags.error(f"{args.out} holds a proof already: give another --out")
    # every step is to be seen, and the calm run keeps the steps that others go on from
    always = ["--config.loop.log_every_steps=1"]
    always += ["--config.loop.checkpoint.keep=1000000"] if args.other else []
    compiled = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or args.out / "compiled")
    trainer = Trainer(
        args.config, (*always, *overrides), args.timeout_s, compiled,
        env=command.variables(args.env),
    )  # fmt: skip
    say(f"workdirs in {args.out}")
    try:
        found = prove(args, trainer)
    except Failed as problem:
        say(f"not proven: {problem}")
        return 1
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    good = found["identical"] and found["as_expected"]
    good = good and all(other["within_tolerance"] for other in found["others"])
    say(f"{found['kills']} kills: " + ("bit-identical" if found["identical"] else "NOT IDENTICAL"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
