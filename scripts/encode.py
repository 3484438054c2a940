"""Turn pages into codes: `python scripts/encode.py --tokenizer RUN --out DIR [--num-pages N]`.

The cache records the token contract; a finished cache of the same contract and pages is left as it
is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline


def main() -> None:
    """Parse the flags, encode."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--tokenizer", type=Path, required=True, help="workdir of its training")
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--num-pages", type=int, default=8000)
    args = flags.parse_args()
    tokenizer = pipeline.load_model(args.tokenizer)
    pipeline.encode_pages(tokenizer, args.out, num_pages=args.num_pages)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
