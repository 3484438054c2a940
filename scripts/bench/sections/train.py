"""Training: forward, backward and update of a class decoder and of a tokenizer, our own step and
PyTorch's in turns."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from scripts.bench import torch_side
from scripts.bench.generation import SHAPES, decoder_of
from scripts.bench.report import Report
from scripts.bench.training import TOKENIZERS, code_batch, ours, page_batch, tokenizer_task
from scripts.bench.training_peers import decoder, rival, tokenizer
from scripts.bench.turns import in_turns, median, ratio, timed
from train.accounting import mfu
from train.task import Task

HEAD = ("model", "dtype", "rows", "ours s", "eager s", "compiled s", "ours / eager",
        "ours / compiled", "ours a second", "GFLOP/s", "of the products' rate", "MFU")  # fmt: skip


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Those of training; what is not given depends on the platform."""
    cpu = jax.default_backend() == "cpu"
    flags.add_argument("--train-shape", choices=SHAPES, default="b", help="of the decoder")
    flags.add_argument("--train-rows", type=int, default=2 if cpu else 64, help="decoder's batch")
    flags.add_argument("--tokenizer-shape", choices=TOKENIZERS, default="small" if cpu else "vq16")
    flags.add_argument("--page-px", type=int, default=128 if cpu else 256, help="a side")
    flags.add_argument("--tokenizer-rows", type=int, default=4 if cpu else 16)


def measure(report: Report, args: argparse.Namespace) -> None:
    """Decoder and tokenizer."""
    shape, config = SHAPES[args.train_shape], TOKENIZERS[args.tokenizer_shape]
    models: dict[str, tuple[Task, Callable[[], Any], Mapping[str, np.ndarray], float]] = {
        f"decoder {args.train_shape}": (
            decoder_of(shape, dtype=args.dtype), lambda: decoder(shape),
            code_batch(shape, args.train_rows), args.train_rows * shape.num_codes,
        ),
        f"tokenizer {args.tokenizer_shape}": (
            tokenizer_task(args.tokenizer_shape, dtype=args.dtype), lambda: tokenizer(config),
            page_batch(args.page_px, args.tokenizer_rows), args.tokenizer_rows,
        ),
    }  # fmt: skip
    found: dict[str, Any] = {}
    for name, (task, peer, batch, amount) in models.items():
        if report.is_late(f"train, {name}"):
            continue
        kind = name.split()[0]
        found[kind] = {"model": name, **_row(report, args, task, peer, batch)}
        unit = "tokens_per_s" if kind == "decoder" else "images_per_s"
        said = found[kind]
        said[unit] = {n: amount / s for n, s in said["step_s"].items()}
        report.put("train", found)
        steps = said["step_s"]
        report.table("Training step", HEAD, [[
            f"{name}, {said['num_params'] / 1e6:.1f}M", args.dtype, said["rows"], steps["ours"],
            steps.get("eager"), steps.get("compiled"), said.get("ratio_to_eager_peer"),
            said.get("ratio_to_compiled_peer"), f"{said[unit]['ours']:.4g} {unit.split('_')[0]}",
            said["flops_per_s"] / 1e9, said["share_of_matmul_rate"], said["mfu"],
        ]])  # fmt: skip


def _row(
    report: Report,
    args: argparse.Namespace,
    task: Task,
    peer: Callable[[], Any],
    batch: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """One model's step by everybody."""
    machine, own = report.machine, ours(task, batch)
    names = [name for name in args.peers if name in ("eager", "compiled")]
    rivals = {
        name: rival(peer(), batch, compiled=name == "compiled", dtype=args.dtype) for name in names
    }
    runs = {"ours": own.run} | {name: r.run for name, r in rivals.items()}
    first = {name: timed(run) for name, run in runs.items()}
    losses = {name: run() for name, run in runs.items()}
    took = in_turns(runs, args.turns)
    own_s, num_rows = median(took["ours"]), len(next(iter(batch.values())))
    if names:
        torch_side.forget()
    return {
        "rows": num_rows, "dtype": args.dtype, "num_params": own.num_params,
        "peer_params": {name: r.num_params for name, r in rivals.items()},
        "step_flops": own.flops, "flops_per_s": own.flops / own_s,
        "share_of_matmul_rate": own.flops / own_s / machine.matmul_flops_per_s[args.dtype],
        "mfu": mfu(own.flops, own_s, num_devices=1, peak_flops_per_s=machine.peak_flops_per_s),
        "step_s": {name: median(t) for name, t in took.items()},
        "rows_per_s": num_rows / own_s, "first_run_s": first, "turns_s": took,
        "losses": losses,
        **{f"ratio_to_{name}_peer": ratio(took, name) for name in names},
    }  # fmt: skip
