"""Eight emulated devices, and JAX as strict as production can bear."""

import gc
import os
import signal

from hypothesis import settings

from tests.bundles import COMPILED_QUICKLY

# A shell has what it puts into the background ignore SIGINT, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8", COMPILED_QUICKLY]
)

settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")

# Files with tests of half a minute. They begin the share of the first of two workers, so that what
# is left for the last minute is short.
LONG = (
    "test_tasks_kill.py", "test_prove_resume.py", "test_larger_pages.py", "test_processes.py",
    "test_kill.py", "test_compare.py", "test_benchmark.py", "test_scripts.py", "test_passes.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish():
    """What was imported stays: looking for garbage in it took a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
