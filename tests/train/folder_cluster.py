"""Processes that tell each other things through files, for tests that need no coordination
service."""

import dataclasses
import os
import time
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class FolderCluster:
    """What `train/supervision/watchdog.py` and `train/supervision/stopping.py` ask of a cluster."""

    folder: Path
    process_index: int
    num_processes: int

    @property
    def name(self):
        return f"process {self.process_index} (host-{'abcdefgh'[self.process_index]})"

    def put(self, key, value):
        path = self.folder / key.replace("/", "+")
        draft = path.with_name(f"{path.name}.{self.process_index}.part")
        draft.write_text(value)
        os.replace(draft, path)

    def get(self, key):
        path = self.folder / key.replace("/", "+")
        return path.read_text() if path.exists() else None

    def barrier(self, name, timeout_s):
        self.put(f"{name}/{self.process_index}", "here")
        end = time.monotonic() + timeout_s
        while any(self.get(f"{name}/{i}") is None for i in range(self.num_processes)):
            if time.monotonic() > end:
                raise TimeoutError(name)
            time.sleep(0.01)
