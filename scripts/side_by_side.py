"""Scores of several runs on one page:
`python scripts/side_by_side.py A/scores.json B/scores.json ... PAGE.html`.

The first run is what the others are compared with: prompt by prompt where each has its cases.jsonl
beside its scores.json, as scripts/evaluate.py leaves them, else by the runs' own intervals. Runs of
different benchmarks or readers are refused.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evals.comparison import compare, named, sums_beside


def main(paths: list[Path]) -> None:
    """Read the scores, write the page to the last path."""
    if len(paths) < 3 or paths[-1].suffix != ".html":
        raise ValueError(
            "give the scores.json of two runs or more, then the page to write, which ends in .html"
        )
    runs = named(paths[:-1])
    page = compare(runs, sums_beside(paths[:-1], runs))
    paths[-1].parent.mkdir(parents=True, exist_ok=True)
    paths[-1].write_text(page, encoding="utf-8")
    print(f"open {paths[-1]}")


if __name__ == "__main__":
    try:
        main([Path(argument) for argument in sys.argv[1:]])
    except (ValueError, OSError) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")
