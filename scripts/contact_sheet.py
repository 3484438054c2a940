"""A sheet of procedural pages to look at: `python scripts/contact_sheet.py --out sheet.png`."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blueprint.typeset import PLAIN_FONT, load_font
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import page

_COLUMNS, _CELL_PX, _CAPTION_PX = 6, 256, 76


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
    rows = -(-args.num_pages // _COLUMNS)
    cell = _CELL_PX + 8, _CELL_PX + _CAPTION_PX
    sheet = Image.new("RGB", (_COLUMNS * cell[0], rows * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    font = load_font(PLAIN_FONT, 12)
    for i in range(args.num_pages):
        made = page(args.first_seed + i, style)
        x, y = i % _COLUMNS * cell[0] + 4, i // _COLUMNS * cell[1] + 4
        picture = Image.fromarray(made.pixels).resize(
            (_CELL_PX, _CELL_PX), Image.Resampling.LANCZOS
        )
        sheet.paste(picture, (x, y))
        draw.text((x, y + _CELL_PX + 2), textwrap.fill(made.prompt, 42), "black", font)
    sheet.save(args.out)


if __name__ == "__main__":
    main()
