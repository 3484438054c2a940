"""Real processes on this machine: two with two devices each find in every bit what one with four
finds, and a signal to one of them is a signal to the run."""

import json
import os
import re
import subprocess
import sys

from scripts.proof import evidence
from scripts.proof.sight import records, saved
from tests.bundles import CACHE, COMPILED_QUICKLY, ROOT
from train.exits import STOPPED

STEPS = 8
RUN = """
import json, pathlib, signal, sys
from scripts.proof.starts import Blow, Layout, Trainer
config, workdir, compiled, processes, devices, struck, *overrides = sys.argv[1:]
trainer = Trainer(pathlib.Path(config), tuple(overrides), 600, pathlib.Path(compiled))
blow = Blow(signal.SIGTERM, int(processes) - 1, "step", int(struck))
outcome = trainer.start(pathlib.Path(workdir), Layout(int(processes), int(devices)), blow)
print(json.dumps(outcome.codes))
"""


def start(workdir, layout):
    """Train until a SIGTERM to the last process, once step `STEPS` is recorded."""
    overrides = (
        "data.batch_size=4", "data.page.width_px=96", "data.page.height_px=96",
        "loop.optimizers.hidden.name=adamw", "critic.weight=0.5", "critic.width=8",
        "critic.num_layers=1", "critic.num_groups=4", "critic.adaptive=False",
        "loop.num_steps=2000", "loop.eval_every_steps=4", "loop.checkpoint.every_steps=4",
        "loop.checkpoint.keep=99",
    )  # fmt: skip
    environment = {
        **os.environ, "XLA_FLAGS": COMPILED_QUICKLY, "PYTHONPATH": str(ROOT),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }  # fmt: skip
    config = ROOT / "configs/tiny/tokenizer.py"
    argv = [config, workdir, CACHE, *layout, STEPS, *(f"--config.{o}" for o in overrides)]
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, argv)],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_two_processes_find_what_one_finds_and_stop_together(tmp_path):
    """A tokenizer with a critic, whose losses are percents apart after fifty steps where the last
    bit of a sum differs."""
    runs = {(1, 4): tmp_path / "one", (2, 2): tmp_path / "two"}
    running = {layout: start(workdir, layout) for layout, workdir in runs.items()}
    for (processes, _), process in running.items():
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, err[-3000:]
        assert json.loads(out) == {str(i): STOPPED for i in range(processes)}
    one, two = runs.values()
    said = re.findall(r"\[(\d)\] .*saved at step (\d+)", (two / "output.txt").read_text())
    stopped_at = saved(two)[-1]
    assert sorted(said) == [("0", str(stopped_at)), ("1", str(stopped_at))]
    assert stopped_at >= STEPS and {4, 8} <= set(saved(two))
    rows = [row for row in evidence.losses(one, two) if row["step"] <= STEPS]
    assert [row["step"] for row in rows if row["equal"]] == list(range(1, STEPS + 1))
    evaluated = [name for name in records(one)[4] if name.startswith("eval/")]
    assert len(evaluated) > 3 and all(row["undisturbed"] > 0 for row in rows)
    same = evidence.compare(*(evidence.ending(workdir, STEPS) for workdir in (one, two)))
    assert [row["what"] for row in same if not row["equal"]] == [] and len(same) > 5
