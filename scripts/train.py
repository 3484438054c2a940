"""Train one model: `python scripts/train.py --config configs/X.py --workdir W [--config.a.b=c]`.

A second call with the same workdir goes on from the newest checkpoint, or returns at once when it
is done.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline
from train import config as configs
from train.loop import train


def main() -> None:
    """Parse the flags, build the run, train."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--config", type=Path, required=True)
    flags.add_argument("--workdir", type=Path, required=True)
    args, overrides = flags.parse_known_args()
    config = configs.load(args.config, overrides)
    run = pipeline.run(config)
    if not (args.workdir / "checkpoints").exists():  # a restart under another config is refused
        args.workdir.mkdir(parents=True, exist_ok=True)
        (args.workdir / "config.json").write_text(json.dumps(config.to_dict(), indent=1))
    # these decide nothing of what is learnt, or a hash in the task says what they do
    aside = ("codes", "tokenizer", "prompt_tokenizer", "num_evaluation_pages")
    data = {k: v for k, v in config.data.to_dict().items() if k not in aside}
    data = {**data, **run.data}
    train(run.task, run.dataset, run.loop, args.workdir, evaluate=run.evaluate, data=data)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
