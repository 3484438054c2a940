"""Turn pages into codes: `python scripts/encode.py --tokenizer RUN --out DIR [--num-pages N]`.

The pages are those of the tokenizer's own config, or of the `data` section of `--config PATH
[--config.data.key=value]`. The cache records the token contract and what was encoded. A second call
keeps the shards that are whole and makes the others; under another contract, or for other pages, it
is refused.

`--num-workers` processes draw pages for the device: on a CPU none, else as many as there are cores
but one, unless told. To share the work, start N processes with `--num-processes N` and
`--process-index` 0 to N - 1; the last to finish writes the header.

`--verify --out DIR` reads every byte of a finished cache instead.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

import pipeline
from train import config as configs
from train.data.codes import verify
from train.data.encoding import encode


def num_workers() -> int:
    """None on a CPU, which has to encode as well; else all cores but one."""
    on_cpu = jax.default_backend() == "cpu"
    return 0 if on_cpu else max(1, len(os.sched_getaffinity(0)) - 1)


def main() -> None:
    """Parse the flags, encode or verify, and say what the cache is like."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--tokenizer", type=Path, help="workdir of its training")
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--config", type=Path, help="whose `data` section to encode")
    flags.add_argument("--num-pages", type=int, default=0, help="all of them without it")
    flags.add_argument("--shards", type=int, default=16)
    flags.add_argument("--process-index", type=int, default=0)
    flags.add_argument("--num-processes", type=int, default=1)
    flags.add_argument("--num-workers", type=int, help="that draw pages; 0 on a CPU")
    flags.add_argument("--verify", action="store_true")
    args, overrides = flags.parse_known_args()
    if args.verify:
        header = verify(args.out)
    else:
        if args.tokenizer is None:
            raise ValueError("give the --tokenizer that makes the codes, or --verify a cache")
        tokenizer = pipeline.load_model(args.tokenizer)
        data = tokenizer.config.data
        if args.config:
            data = configs.load(args.config, overrides).data
        elif overrides:
            raise ValueError(f"{' '.join(overrides)}: there is no --config to override")
        job = pipeline.encoding(
            tokenizer, data, args.out, num_pages=args.num_pages, num_shards=args.shards
        )
        workers = num_workers() if args.num_workers is None else args.num_workers
        header = encode(
            job, process_index=args.process_index, num_processes=args.num_processes,
            num_workers=workers,
        )  # fmt: skip
    if header is None:
        print(f"{args.out}: shards of other processes are missing; the last writes cache.json")
        return
    checked = header["checked"]
    print(
        f"{args.out}: {header['num_records']} records in {header['num_shards']} shards; of "
        f"{len(checked['records'])} that were read back, each had {checked['codes_equal']:.2%} or "
        f"more of its codes again, {checked['psnr_db']:.2f} dB from their pages"
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
