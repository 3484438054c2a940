"""The flags by which scripts say how a bundle is to print: on which mesh, in how many passes, with
what cache and what weights. None of them changes what its models are."""

from __future__ import annotations

import argparse
from typing import Any

from layers.quantized import WEIGHTS
from train import mesh as meshes


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Those that `settings` reads."""
    flags.add_argument(
        "--mesh", type=_mesh, metavar="data=4,tensor=2",
        help="print on all devices of this process: rows over data (and fsdp), heads over tensor",
    )  # fmt: skip
    flags.add_argument(
        "--passes", type=int, help="in which a decoder that is not causal prints a page"
    )
    flags.add_argument("--kv-cache", help="what keys and values are kept in: layers/attention.py")
    flags.add_argument(
        "--weights", choices=WEIGHTS, default="float32",
        help="what the kernels of planner's and decoder's products are kept in",
    )  # fmt: skip


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What `pipeline.Bundle` takes beside its folder."""
    said = {"num_passes": args.passes, "cache": args.kv_cache}
    press = {name: value for name, value in said.items() if value is not None}
    return {"mesh": args.mesh, "press": press, "weights": args.weights}


def is_own(args: argparse.Namespace) -> bool:
    """Whether the bundle prints what it prints by itself: a mesh changes no code."""
    said = settings(args)
    return not said["press"] and said["weights"] == "float32"


def _mesh(text: str) -> dict[str, int]:
    try:
        return meshes.of_flag(text)
    except ValueError as problem:  # of which argparse would show nothing
        raise argparse.ArgumentTypeError(str(problem)) from problem
