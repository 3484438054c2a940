"""Compile a run for machines that are not here: does it fit, and how fast can it be?

    python scripts/preflight.py --config C --target v5p:8x8x8 [--json F] [--config.a.b=c]

Targets are slices of TPUs (`v5e:16x16`, `v5p:8x8x8`, `v6e:16x16`; they need the `preflight` extra,
but no TPU), emulated CPU devices (`cpu:8`), or GPUs (`h100:64`): those are an estimate, from the
program that XLA makes for as many CPU devices. Exits with 1 when a chip's memory does not suffice.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

from layers.kernels import use_kernel
from pipeline.abstract import AbstractRun, abstract_run
from train import config as configs
from train.accounting import model_flops
from train.hardware import Hardware, preset
from train.plan import LoopConfig
from train.preflight import compiling as preflight
from train.preflight import roofline
from train.preflight.roofline import GB

ESTIMATE = "an estimate from the program for CPU devices: a GPU's compiler fuses and keeps other"


def _start(where: preflight.Target) -> None:
    """No device of this machine is touched, but as many CPU devices as the target has."""
    jax.config.update("jax_platforms", "cpu")
    if not where.is_tpu:
        jax.config.update("jax_num_cpu_devices", where.num_devices)
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # this is no machine of Google's
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nobody takes a TPU
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "1")  # the partitioner's warnings are read


def look(run: AbstractRun, where: preflight.Target, chip: Hardware, asked: bool) -> dict:
    """Everything that is said about a run on a target."""
    with preflight.captured_stderr():  # libtpu says that it finds no TPU
        mesh = preflight.lay_out(run.loop, where)
    sizes = dict(mesh.shape)
    usual = {"remat": chip.remat, "microbatch": chip.microbatch}  # devices may stand in for it
    run = dataclasses.replace(
        run, loop=dataclasses.replace(run.loop, hardware={**run.loop.hardware, **usual})
    )
    planned, program = preflight.train_step(run.task, run.loop, run.batch, mesh)
    parts = roofline.memory(
        planned.abstract, preflight.batch_of(run.batch, mesh, run.loop), program
    )
    step = roofline.report(program, chip, sizes)
    with use_kernel("xla"):
        flops = model_flops(run.task, run.batch)
    step_s, peak = step.get("roofline_s"), chip.peak_flops_per_s
    executed = step.get("flops_per_chip", 0) * mesh.size
    said: dict[str, Any] = {
        "target": f"{where.kind}:{where.size}", "estimate": where.kind == "h100", "mesh": sizes,
        "fits": step["fits"], "hbm_per_chip_gb": step["needed_gb"], "hbm_parts_gb": parts,
        "flops_per_step": executed, "model_flops_per_step": flops,
        "collective_bytes_per_chip": step.get("collective_bytes_per_chip", {}),
        "roofline_step_s": step_s,
        "mfu_bound": flops / (mesh.size * peak * step_s) if peak and step_s else None,
        "left_out": list(run.left_out), "step": step,
    }  # fmt: skip
    remat = getattr(getattr(run.task, "model", None), "remat", None)
    if not step["fits"]:
        said["remedy"] = roofline.remedy(
            parts, step["hbm_gb"], chip.remat if remat == "auto" else remat
        )
    if asked and run.generation and step["fits"]:
        generated = preflight.generation_step(run.task, run.loop, planned, run.generation, mesh)
        report = roofline.report(generated, chip, sizes)
        said["generation"] = {"what": run.generation.what, **report}
    return said


def _program(name: str, said: dict) -> list[str]:
    limit = "unknown" if said["hbm_gb"] is None else f"{said['hbm_gb']:.2f}"
    verdict = "fits" if said["fits"] else "DOES NOT FIT"
    rows = [f"{name}: {said['needed_gb']:.3g} GB of {limit} a chip: {verdict} "
            f"(compiled in {said['compile_s']} s)"]  # fmt: skip
    if said["problem"]:
        return [*rows, f"  {said['problem']}"]
    rows.append(
        f"  {said['flops_per_chip']:.4g} FLOPs and {said['hbm_bytes_per_chip'] / GB:.2f} GB of "
        f"memory traffic a chip: {said['arithmetic_intensity']:.0f} FLOPs a byte"
    )
    for kind, axes in said["collective_bytes_per_chip"].items():
        for axis, size in axes.items():
            rows.append(f"  {kind:18s} over {axis:12s} {size / GB:10.4f} GB sent a chip")
    times = {k.removesuffix("_s"): v for k, v in said["bounds_s"].items()}
    if said["roofline_s"] is not None:
        shown = ", ".join(f"{name} {seconds:.4f} s" for name, seconds in times.items())
        rows.append(f"  at least {said['roofline_s']:.4f} s, by {said['bound_by']} ({shown})")
    rows += [f"  note: {note}" for note in said["notes"]]
    rows += [f"  XLA: {line}" for line in said["rematerialisations"]]
    return rows


def printed(said: dict) -> str:
    """The report as text."""
    mesh = " x ".join(f"{name}={size}" for name, size in said["mesh"].items())
    rows = [f"{said['target']}, mesh {mesh}" + (f" ({ESTIMATE})" if said["estimate"] else "")]
    rows += [f"  {size:9.3g} GB {name}" for name, size in said["hbm_parts_gb"].items() if size]
    rows += [f"  left out, since it needs a trained model: {name}" for name in said["left_out"]]
    rows += _program("train step", said["step"])
    rows.append(f"  {said['flops_per_step']:.4g} FLOPs a step, "
                f"{said['model_flops_per_step']:.4g} without what is made again")  # fmt: skip
    if said["mfu_bound"] is not None:
        rows.append(f"  MFU at most {said['mfu_bound']:.3f}")
    if "generation" in said:
        rows += _program(f"generation ({said['generation']['what']})", said["generation"])
    return "\n".join([*rows, *([f"change: {said['remedy']}"] if "remedy" in said else [])])


def main() -> int:
    """Parse the flags, compile, say it; the exit code."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--config", type=Path, required=True)
    flags.add_argument("--target", default="cpu:1", help="kind:size, as v5p:8x8x8, h100:64, cpu:8")
    flags.add_argument("--json", type=Path, help="write the numbers there")
    flags.add_argument("--hbm-gb", type=float, help="a chip's memory, if not as the kind says")
    flags.add_argument("--no-generation", action="store_true", help="compile the train step only")
    args, overrides = flags.parse_known_args()
    where = preflight.target(args.target)
    _start(where)
    run = abstract_run(
        configs.load(args.config, overrides, sections={"loop": LoopConfig}, defaults={"init": ""})
    )
    chip = preset(where.kind, run.loop.hardware)
    if args.hbm_gb is not None:
        chip = dataclasses.replace(chip, hbm_bytes=args.hbm_gb * GB)
    said = look(run, where, chip, not args.no_generation)
    print(printed(said))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(said, indent=1) + "\n")
    return 0 if said["fits"] else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
