"""What one process saved two restore, and the other way round, onto other meshes."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.train.saving_toys import quiet, same, toy
from train.checkpoint import manifest, steps, verify

SCRIPT = Path(__file__).with_name("saving_processes.py")


def test_two_processes_take_over_from_one_and_one_from_two(tmp_path):
    with quiet(tmp_path) as saves:
        saves.save(toy(1), 1)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    pair = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path), str(port), str(process)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for process in range(2)
    ]  # fmt: skip
    ends = [process.communicate(timeout=240)[1] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], "".join(e[-3000:] for e in ends)
    assert steps(tmp_path) == [1, 2] and verify(tmp_path)["step"] == 2
    noted = manifest.read(tmp_path / "2")
    assert noted["num_processes"] == 2 and noted["num_devices"] == 4
    assert any("ocdbt.process_1" in name for name in noted["files"])  # both wrote
    same(quiet(tmp_path).restore(toy()), toy(1))
