"""Every config as text: a change of a default shows in the diff of tests/golden/."""

import json
from pathlib import Path

import pytest

from train.config import load

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(
    p
    for p in (ROOT / "configs").glob("*/*.py")
    if p.name != "__init__.py" and p.parent.name != "compare"
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_config_is_the_golden_one(path):
    golden = Path(__file__).parent / "golden" / f"{path.parent.name}_{path.stem}.json"
    text = json.dumps(load(path).to_dict(), indent=1) + "\n"
    assert golden.is_file(), f"{golden} is missing; the config is now:\n{text}"
    assert golden.read_text() == text
