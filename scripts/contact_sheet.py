"""A sheet of procedural pages to look at: `python scripts/contact_sheet.py --out sheet.png`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evals.report import sheet
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import page


def main() -> None:
    """Parse the flags, make the pages, write the sheet."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--num-pages", type=int, default=24)
    flags.add_argument("--first-seed", type=int, default=0)
    flags.add_argument("--size-px", type=int, default=128)
    flags.add_argument("--split", default="train", choices=("train", "heldout"))
    flags.add_argument("--quoted", default="mixed", choices=("mixed", "all"))
    args = flags.parse_args()
    style = PageStyle(args.size_px, args.size_px, args.split, args.quoted)
    pages = [page(args.first_seed + i, style) for i in range(args.num_pages)]
    drawn = sheet([made.pixels for made in pages], [made.prompt for made in pages])
    Image.fromarray(drawn).save(args.out)


if __name__ == "__main__":
    main()
