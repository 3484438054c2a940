"""Prepare our procedural pages as a TFDS data set in ArrayRecord, without TensorFlow.

    python scripts/prepare.py --config all_128 --data-dir data [--max-pages 2000] [--num-shards 8]

Configs are a domain (all, posters, mockups, shops) and a side in pixels (128, 256). Where Beam is
installed, `--beam direct_num_workers=8,direct_running_mode=multi_processing` has its workers paint
the pages. `--config.data.sources="{'mine': {'format': 'tfds', 'path': ...}}"` trains from what is
written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from train.data.builders.letterpress_pages.letterpress_pages_dataset_builder import Builder


def beam_options(text: str) -> Any:
    """Beam's options from `key=value,...`; raises `ImportError` where it is not installed."""
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as problem:
        raise ImportError(f"--beam needs apache-beam, which is not here ({problem})") from None
    return PipelineOptions(flags=[f"--{option}" for option in text.split(",")])


def main() -> None:
    """Write both splits and say where they are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [config.name for config in Builder.BUILDER_CONFIGS]
    parser.add_argument("--config", choices=names, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--max-pages", type=int, help="at most so many of each split")
    parser.add_argument("--num-shards", type=int, help="as many as their size asks for")
    parser.add_argument("--beam", default="", help="options of Beam, which then does it")
    args = parser.parse_args()
    logging.set_verbosity(logging.INFO)
    download = tfds.download.DownloadConfig(
        max_examples_per_split=args.max_pages,
        num_shards=args.num_shards,
        beam_options=beam_options(args.beam) if args.beam else None,
    )
    builder = Builder(config=args.config, data_dir=args.data_dir)
    if builder.is_prepared():
        raise FileExistsError(
            f"{builder.data_path} is there already: delete it, or write elsewhere"
        )
    builder.download_and_prepare(download_config=download)
    counts = ", ".join(
        f"{name} {split.num_examples}" for name, split in builder.info.splits.items()
    )
    print(f"{builder.data_path}: {counts}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError, ImportError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
