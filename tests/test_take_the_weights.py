"""README's commands under "Take the weights with you", run as they stand there on a tiny bundle."""

import json
import re
import shlex
import subprocess
import sys

from tests.bundles import ROOT, environment, tiny_bundle

SECTION = "## Take the weights with you"


def commands():
    section = (ROOT / "README.md").read_text().split(SECTION)[1].split("\n## ")[0]
    return [line for line in section.split("```")[1].splitlines() if line]


def test_the_section_has_three_commands():
    assert len(commands()) == 3
    assert all(re.match(r"python scripts/\w+\.py --", line) for line in commands())


def test_they_do_what_they_say(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(tiny_bundle())
    for line in commands():
        words = shlex.split(line.replace("configs/demo/", "configs/tiny/"))
        command = [sys.executable, str(ROOT / words[1]), *words[2:]]
        command = [str(ROOT / w) if w.startswith("configs/") else w for w in command]
        told = subprocess.run(
            command, cwd=tmp_path, env=environment(1), capture_output=True, text=True, timeout=300
        )
        assert told.returncode == 0, told.stderr[-2000:]
    for folder in ("demo_bundle", "demo_llama/planner", "runs/imported"):
        assert json.loads((tmp_path / folder / "parity.json").read_text())["ok"], folder
    assert (tmp_path / "runs" / "imported" / "weights" / "manifest.json").is_file()
    assert "A Letterpress bundle" in (tmp_path / "demo_bundle" / "README.md").read_text()
