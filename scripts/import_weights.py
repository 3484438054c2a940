"""Start from published weights: make a run of them that `scripts/train.py` goes on from.

    python scripts/import_weights.py --format transformers --source DIR --config C --out RUN
    python scripts/train.py --config C --workdir RUN

The config says what the run trains on and how; its `model` has to be that of the weights, and every
setting that differs is named. `--format` is one of transformers, diffusers and llamagen. What the
other format has no place for starts fresh, and is listed in RUN/weights/manifest.json.
RUN/parity.json says how far our model's numbers are from the other library's on the same inputs;
exits with 1 when that is too far.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.export import IMPORTS, bring_in
from train import config as configs
from train.distributed import ClusterConfig
from train.plan import LoopConfig


def main() -> int:
    """Parse the flags, import, say what was found; the exit code."""
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--format", choices=IMPORTS, required=True)
    flags.add_argument("--source", type=Path, required=True, help="the folder or file of weights")
    flags.add_argument("--config", type=Path, required=True)
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--no-parity", action="store_true")
    args, overrides = flags.parse_known_args()
    sections = {"loop": LoopConfig, "cluster": ClusterConfig}
    config = configs.load(args.config, overrides, sections=sections)
    wanted = not args.no_parity
    parity = bring_in(args.source, args.format, config, args.out, parity=wanted)
    print(f"{args.out} {parity}")
    if parity.found and not parity.ok:
        print(f"{args.out} computes something else than {args.source}: do not use it")
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
