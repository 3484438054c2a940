"""Prove that converting a model holds arrays, not the model: a planner of the shape of Llama 3.2 1B
(random weights), out of an Orbax checkpoint into the files of transformers, back into a run, and
from that run out again, each in a process of its own whose greatest resident memory is told:

    python scripts/prove_streaming.py --out /tmp/streaming --dtype float32

The first process makes the checkpoint and holds the model three times (15 GB); the disk holds four
(20 GB). At the end the two exports are compared in every byte, and the two runs if in float32,
since bfloat16 is rounded on the way. Exit code 1 when they differ, or when a process that converts
took more than `--most-gb`.

Measured on two CPU cores (1,235,814,400 parameters, the largest array 1.07 GB, all the same in
every byte): 2.64 GB out of Orbax, 1.52 GB back into a run, 1.63 GB out of that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_PARTS = ("make", "export", "import", "export_again", "compare")
_MEASURED = ("export", "import", "export_again")
_IDS = 128256  # of Llama 3
_OURS, _THEIRS, _BACK, _AGAIN = "run", "hub", "back", "hub_again"


def config_of(num_layers: int):  # naming its type would load the library
    """The planner's config, whose ids are as many as Llama's."""
    from train.config import load

    layers = f"--config.model.blocks.num_layers={num_layers}"
    ids = f"--config.model.vocab_size={_IDS}"
    return load("configs/planner/1b.py", [layers, ids])


def make(out: Path, num_layers: int) -> None:
    """A run with a checkpoint of random weights; this process does hold the model."""
    import numpy as np

    from pipeline.tasks import task_of
    from train.checkpoint import Checkpoints, arrays
    from train.checkpoint.weights import list_keys
    from train.export.folder import model_arrays
    from train.state import State

    config, rng = config_of(num_layers), np.random.default_rng(0)
    made = {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, (_, shape) in model_arrays(task_of(config)).items()
    }
    params = list_keys(arrays.nest(made))["params"]
    run = out / _OURS
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(config.to_dict(), indent=1))
    with Checkpoints(run / "checkpoints", identity={}) as checkpoints:
        checkpoints.save(State(np.int32(1), params, {}, {}, {}), 1)


def convert(part: str, out: Path, dtype: str, num_layers: int) -> None:
    """One way, without what loads the whole model to show that both compute the same."""
    from pipeline.export.family import export, import_weights
    from pipeline.export.transformers import FAMILY

    if part == "import":
        config = config_of(num_layers)
        import_weights(FAMILY, out / _THEIRS, config, out / _BACK, parity=False)
        return
    run, folder = (_OURS, _THEIRS) if part == "export" else (_BACK, _AGAIN)
    export(FAMILY, out / run, out / folder, dtype=dtype, parity=False)


def compare(out: Path, dtype: str) -> None:
    """Exit with a message unless all came back."""
    import numpy as np

    from train.export import Parity, open_tensors
    from train.export.folder import open_run

    parity = Parity("itself")
    parity.arrays("exports", open_tensors(out / _THEIRS), open_tensors(out / _AGAIN))
    with open_run(out / _OURS) as (ours, _), open_run(out / _BACK) as (back, _):
        if dtype == "float32":
            parity.arrays("runs", ours, back)
        count = sum(int(np.prod(array.shape)) for array in ours.values())
    print(f"{count:,} parameters; {parity}")
    sys.exit(0 if parity.ok else 1)


def start(part: str, args: argparse.Namespace) -> float:
    """Run a part as a process of its own; its greatest resident memory in GB."""
    command = [sys.executable, __file__, "--out", str(args.out), "--dtype", args.dtype]
    command += ["--num-layers", str(args.num_layers), "--part", part]
    begun = time.monotonic()
    child = subprocess.Popen(command, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    peak_gb = used.ru_maxrss * 1024 / 1e9
    took_s = time.monotonic() - begun
    print(f"{part}: {peak_gb:.2f} GB resident at most, {took_s:.0f} s", flush=True)
    if child.returncode:
        sys.exit(child.returncode)
    return peak_gb


def main() -> None:
    """Parse the flags and run the parts."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    flags.add_argument("--num-layers", type=int, default=16)
    flags.add_argument("--most-gb", type=float, default=6.0)
    flags.add_argument("--part", choices=_PARTS, help="what one of the processes does")
    args = flags.parse_args()
    if args.part == "make":
        make(args.out, args.num_layers)
    elif args.part == "compare":
        compare(args.out, args.dtype)
    elif args.part:
        convert(args.part, args.out, args.dtype, args.num_layers)
    else:
        peaks = {part: start(part, args) for part in _PARTS}
        if odd := [part for part in _MEASURED if peaks[part] > args.most_gb]:
            sys.exit(f"more than {args.most_gb} GB: {', '.join(odd)}")


if __name__ == "__main__":
    main()
